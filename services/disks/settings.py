"""Settings of the disks service, read from GPUDEV_<FIELD>. AWS keys come from boto3's own chain, never from here."""

from shared.settings import CommonSettings


class DisksSettings(CommonSettings, frozen=True, kw_only=True):
    aws_region: str
    """Region of the volumes."""
    availability_zone: str
    """Zone in which new volumes are made; an existing disk stays where it is."""
    aws_endpoint_url: str | None = None
    """Where EC2 is asked; None: AWS itself."""
    user_email_domain: str = ""
    """Answers show username@domain as `user_id`; empty: the username alone."""
    claim_seconds: float = 60.0
    """How long a job's claim waits for the job's `submitted` event before it is dropped."""
