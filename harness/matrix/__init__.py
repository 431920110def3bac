"""Many kernels × many programs side by side: a list of Reports, what they say together, and how it is shown."""
