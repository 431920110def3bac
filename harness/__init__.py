"""msp-harness: verifies, at the eBPF level, that a kernel redirects Azure's metadata traffic as MSP needs."""

__version__ = "0.1.0"
