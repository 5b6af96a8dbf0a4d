from services.jobs.storage.tables import metadata
from shared.database.migrate import run_environment
from shared.database.tables import shared_metadata

run_environment(metadata, shared_metadata)
