"""The tables of the disks service, and every SQL statement that it runs.

Locks are taken in one order: the user's names, the disk's row, then claims, then operations and snapshots.
"""

from services.disks.storage import claims, contents, disks, ledger, operations, snapshots

__all__ = ["claims", "contents", "disks", "ledger", "operations", "snapshots"]
