"""What an S3 failure means for the caller. No message ever holds a credential."""

from __future__ import annotations

from botocore import exceptions as aws

from cluster.errors import ClusterError, Fatal, NotFound, Retryable, UserError

_DENIED = "these credentials may not do this: grant read, write, list and delete on the bucket"
_REGION = "the bucket is in another region: set AWS_REGION to the bucket's"
_FULL = "the store is full: free some space or raise its quota"
_UNREACHABLE = "no answer: check --endpoint-url (or AWS_ENDPOINT_URL_S3), and that the server runs"

_MENDS = {
    "NoSuchBucket": "there is no such bucket: create it or correct its name",
    "InvalidBucketName": "the server refuses this bucket name: correct it",
    "InvalidAccessKeyId": "the server does not know the access key: check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired: renew them",
    "InvalidToken": "the session token is not valid: check AWS_SESSION_TOKEN or renew it",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it (NTP)",
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "IncorrectEndpoint": _REGION,
    "QuotaExceeded": _FULL,
    "XMinioStorageFull": _FULL,
}
_MENDS_BY_STATUS = {301: _REGION, 307: _REGION, 401: _DENIED, 403: _DENIED, 507: _FULL}
_MAY_PASS = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestThrottled"}


def http_status(error: aws.ClientError) -> int:
    """The reply's status; 0 where it had none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_unreachable(error: Exception) -> bool:
    """No connection was made, so the request had no effect."""
    return isinstance(error, aws.EndpointConnectionError | aws.ConnectTimeoutError)


def translate(error: aws.ClientError | aws.BotoCoreError, what: str) -> ClusterError:
    """``what`` names the verb, the object and the endpoint: it opens every message."""
    if isinstance(error, aws.ClientError):
        return _translate_reply(error, what)
    if is_unreachable(error) or isinstance(error, aws.ProxyConnectionError):
        return Retryable(f"{what}: {_UNREACHABLE}")
    if isinstance(error, aws.SSLError):
        return UserError(
            f"{what}: the server's certificate is not trusted: correct --endpoint-url, or name "
            "its authority in AWS_CA_BUNDLE"
        )
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
        return UserError(
            f"{what}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE"
        )
    if isinstance(error, aws.CredentialRetrievalError | aws.ProfileNotFound | aws.SSOError):
        return UserError(f"{what}: credentials could not be had ({type(error).__name__}): log in "
                         "again or correct AWS_PROFILE")  # fmt: skip
    if isinstance(error, aws.ParamValidationError | aws.InvalidRegionError):
        return UserError(f"{what}: {' '.join(str(error).split())}: correct it")
    if isinstance(error, aws.HTTPClientError | aws.IncompleteReadError):
        return Retryable(f"{what}: the connection failed ({type(error).__name__})")
    return Fatal(f"{what}: {type(error).__name__}")


def _translate_reply(error: aws.ClientError, what: str) -> ClusterError:
    code = error.response.get("Error", {}).get("Code") or "without a code"
    status = http_status(error)
    if mend := _MENDS.get(code) or _MENDS_BY_STATUS.get(status):
        return UserError(f"{what}: {mend} ({code})")
    if status == 404:
        return NotFound(f"{what}: there is no such object")
    tries = int(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)) + 1
    reply = f"{what}: the server answered {status} {code} (tried {tries} times)"
    if status in (409, 429) or code in _MAY_PASS or (status >= 500 and status != 501):
        return Retryable(reply)
    return Fatal(reply)
