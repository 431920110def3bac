# A gate behind a Packer build: what msp-harness blocks is not published, for the build ends with an error.
#
#   packer build -var image=output/disk.qcow2 docs/examples/image-check.pkr.hcl
#
# The null source stands for your builder; the post-processor is what to take over, behind the builder that writes image.

variable "image" {
  type        = string
  description = "the disk that the builder wrote"
}

variable "depth" {
  type        = string
  default     = "kernel"
  description = "inspect, kernel, boot or full"
}

variable "policy" {
  type        = string
  default     = "docs/examples/image-policy.toml"
  description = "which results block"
}

variable "reports" {
  type        = string
  default     = "."
  description = "the directory for the reports"
}

variable "harness" {
  type        = string
  default     = "msp-harness"
  description = "the command"
}

source "null" "image" {
  communicator = "none"
}

build {
  sources = ["source.null.image"]

  post-processor "shell-local" {
    environment_vars = [
      "HARNESS=${var.harness}",
      "IMAGE=${var.image}",
      "DEPTH=${var.depth}",
      "POLICY=${var.policy}",
      "REPORTS=${var.reports}",
    ]
    inline = [
      "\"$HARNESS\" image check --\"$DEPTH\" --policy \"$POLICY\" --json \"$REPORTS/image.json\" --html \"$REPORTS/image.html\" --sbom \"$REPORTS/image-found.json\" \"$IMAGE\"",
    ]
  }
}
