"""A disk image before it is baked: read it, predict its provisioning, boot its kernel, boot it."""
