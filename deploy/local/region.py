"""Where the local stack says it is: volumes and nodes must agree, as a volume reaches only nodes of its zone."""

REGION = "us-east-2"
AVAILABILITY_ZONE = "us-east-2a"
