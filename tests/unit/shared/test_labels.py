from uuid import UUID

import pytest

from shared.contracts.labels import job_id_of

JOB = UUID("3f2a1c00-0000-4000-8000-000000000001")


def test_the_label_names_the_job() -> None:
    assert job_id_of({"gpudev/job-id": str(JOB), "gpudev/epoch": "1"}) == JOB


@pytest.mark.parametrize("labels", [None, {}, {"gpudev/job-id": ""}, {"gpudev/job-id": "mine"}, {"job-id": str(JOB)}])
def test_an_object_without_a_jobs_id_is_no_jobs(labels: dict[str, str] | None) -> None:
    assert job_id_of(labels) is None
