"""What the person who started the stack reads once it is up."""

from deploy.local.state import StateDirectory

_TEXT = """
GPU Dev is ready after {seconds:.1f} s.

  API    {url}
  Docs   {url}/docs
  Logs   {logs}/<part>.log
  Stop   Ctrl-C

From the command line: {command} login, then {command} --help

In another terminal, get a key and run a first job:

  source {env}
  API_KEY=$(curl -s "$API_URL/v1/auth/aws-login" -H 'Content-Type: application/json' -d "{{
    \\"aws_access_key_id\\": \\"$AWS_ACCESS_KEY_ID\\",
    \\"aws_secret_access_key\\": \\"$AWS_SECRET_ACCESS_KEY\\",
    \\"aws_session_token\\": \\"$AWS_SESSION_TOKEN\\"
  }}" | sed 's/.*"api_key": *"\\([^"]*\\)".*/\\1/')
  curl -s "$API_URL/v1/jobs/submit" -H "Authorization: Bearer $API_KEY" -H 'Content-Type: application/json' -d '{{
    "image": "pytorch/pytorch:2.1.0-cuda12.1-cudnn8-runtime",
    "instance_type": "p5.48xlarge",
    "duration_hours": 1
  }}'
  curl -s "$API_URL/v1/jobs" -H "Authorization: Bearer $API_KEY"
"""


def banner(url: str, state: StateDirectory, *, seconds: float) -> str:
    """The text, ready to print."""
    return _TEXT.format(command=state.command, url=url, logs=state.logs, env=state.env, seconds=seconds)
