"""Run where a client generated from the document is to be imported: log-in, submit, list, cancel."""

import os

from gpudev_client import AuthenticatedClient, Client
from gpudev_client.api.authentication import aws_login
from gpudev_client.api.job_management import cancel_job, list_jobs, submit_job
from gpudev_client.models import ActionAnswer, AwsLoginRequest, AwsLoginResponse, JobList, SubmitAnswer, SubmitRequest

url = os.environ["API_URL"]
login = aws_login.sync(
    client=Client(url),
    body=AwsLoginRequest(
        aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=os.environ["AWS_SESSION_TOKEN"],
    ),
)
assert isinstance(login, AwsLoginResponse), login
client = AuthenticatedClient(url, login.api_key)
job = submit_job.sync(
    client=client,
    body=SubmitRequest(image="debian:12", instance_type="p5.48xlarge", duration_hours=0.5, gpu_count=1),
    idempotency_key=os.urandom(8).hex(),
    prefer="wait=20",
)
assert isinstance(job, SubmitAnswer), job
jobs = list_jobs.sync(client=client, status="", limit=5)
assert isinstance(jobs, JobList), jobs
assert job.job_id in [one.job_id for one in jobs.jobs]
cancelled = cancel_job.sync(str(job.job_id), client=client, prefer="wait=20")
assert isinstance(cancelled, ActionAnswer), cancelled
