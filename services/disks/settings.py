"""Settings of the disks service, read from GPUDEV_<FIELD>. AWS keys come from boto3's own chain, never from here."""

from shared.settings import CommonSettings


class DisksSettings(CommonSettings, frozen=True, kw_only=True):
    aws_region: str
    """Region of the volumes."""
    availability_zone: str
    """Zone in which new volumes are made; an existing disk stays where it is."""
    availability_zones: str = ""
    """Zones with nodes, joined by commas, in place of the one above. A job's new disk is made where capacity says that
    the job starts soonest; every other one, and all while capacity does not answer, in the first. Empty: the one."""
    aws_endpoint_url: str | None = None
    """Where EC2 is asked; None: AWS itself."""
    user_email_domain: str = ""
    """Answers show username@domain as `user_id`; empty: the username alone."""
    claim_seconds: float = 60.0
    """How long a job's claim waits for the job's `submitted` event before it is dropped."""
    disk_retention_days: float = 30.0
    """Days from a disk's deletion to its purge; fractions allowed."""
    max_disks_per_user: int = 200
    """Disks that one user may have, deleted ones not counted."""
    max_disk_gb_per_user: int = 100_000
    """GB in all disks of one user, deleted ones not counted."""
    snapshots_newest: int = 10
    """How many of a disk's newest snapshots are kept; the last one always is."""
    snapshots_weeks: int = 26
    """For how many weeks the newest snapshot of each is kept as well."""
    sweep_seconds: float = 60.0
    """Between two comparisons of AWS with the tables."""
    cluster_name: str = ""
    """Written on each volume as ebs.csi.aws.com/cluster-name, which EKS's policy for one cluster asks for; empty: it is
    not written."""
    rename_seconds: float = 15.0
    """How long a rename may tag snapshots before it answers; the rest is done in the background."""

    def zones(self) -> tuple[str, ...]:
        """Where new volumes may be made; the first one unless something speaks for another."""
        listed = tuple(zone.strip() for zone in self.availability_zones.split(",") if zone.strip())
        return listed or (self.availability_zone,)
