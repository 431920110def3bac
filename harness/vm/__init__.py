"""Other kernels: fetched and kept, booted under QEMU with one small guest that runs this same package."""
