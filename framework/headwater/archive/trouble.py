"""What a storage client's error means, read from status and code wherever they stand, not from the exception's class.

One refusal has many faces: "there is one already" comes as FileExistsError from s3fs on AWS, as OSError(EINVAL) from
s3fs on MinIO, as AlreadyExistsError from obstore, as ResourceExistsError from Azure, as HttpError 412 from gcsfs.
"""

from __future__ import annotations

import errno
import re
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Trouble(Enum):
    """What to do about an error."""

    TAKEN = "there is one already"
    ABSENT = "there is none"
    TRANSIENT = "try again"
    PERMANENT = "give up"


_TAKEN = frozenset({"PreconditionFailed", "BlobAlreadyExists", "ConditionNotMet", "conditionNotMet"})
_ABSENT = frozenset({"NoSuchKey", "BlobNotFound", "PathNotFound"})
_PERMANENT = frozenset({"NoSuchBucket", "ContainerNotFound", "NotImplemented", "RequestTimeTooSkewed"})
_TRANSIENT = frozenset(
    {
        # Somebody else's write of this key is under way: S3 says to try again.
        "ConditionalRequestConflict",
        "OperationAborted",
        # A multipart upload that is gone: completed by a try whose reply was lost, or collected. A new one will tell.
        "NoSuchUpload",
        "InvalidPart",
        # Bytes were changed on their way.
        "BadDigest",
        "IncompleteBody",
        "XAmzContentSHA256Mismatch",
        "XAmzContentChecksumMismatch",
        "InternalError",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServerBusy",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_ERRNO_TRANSIENT = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ETIMEDOUT,
        getattr(errno, "EREMOTEIO", errno.EAGAIN),
    }
)
# The network's own failures, by the names that clients give them; their classes can't be imported where they aren't installed.
_NAME_TRANSIENT = re.compile(
    r"Timeout|TimedOut|ConnectionError|ConnectionClosed|ConnectorError|ServerDisconnected|ClientOSError|"
    r"ClientPayloadError|HTTPClientError|IncompleteRead|ProtocolError|EndpointConnection|ResponseStreaming|ServiceRequest|"
    r"FlexibleChecksum|TransportError"
)
# obstore tells status and code in its text only.
_OBSTORE_TEXT = "Debug source:"
_STATUS_TEXT = re.compile(r"\bstatus(?: code)?:? (\d{3})\b", re.IGNORECASE)
_CODE_TEXT = re.compile(r"<Code>(\w+)</Code>")
_XML = re.compile(r"<\?xml.*?(?:<Code>(\w+)</Code>.*?<Message>([^<]*)</Message>).*", re.DOTALL)
_NETWORK_TEXT = re.compile(
    r"timed? ?out|connection (?:reset|closed|refused|aborted)|error sending request|error decoding response body|"
    r"end of file before message|broken pipe|incomplete message|dns error|HTTP error: request or response body error|"
    r"Timed out waiting",
    re.IGNORECASE,
)


def meaning_of(error: BaseException) -> Trouble:
    """Return what an error of a storage client means; what is of no storage client (a bug) counts as permanent."""
    links = list(_chain(error))
    for code in (code for link in links for code in _codes(link)):
        for known, trouble in (
            (_TAKEN, Trouble.TAKEN),
            (_PERMANENT, Trouble.PERMANENT),
            (_TRANSIENT, Trouble.TRANSIENT),
            (_ABSENT, Trouble.ABSENT),
        ):
            if code in known:
                return trouble
    # Before any status: aiohttp gives a reply that was cut off the status 400.
    if any(_NAME_TRANSIENT.search(type(link).__name__) for link in links):
        return Trouble.TRANSIENT
    for link in links:
        status = _status(link)
        if status is not None:
            return _of_status(status)
    for link in links:
        found = _of_class(link)
        if found is not None:
            return found
    return Trouble.PERMANENT


def text_of(error: BaseException) -> str:
    """Return an error's text on one line, without the answer's whole XML."""
    text = _XML.sub(r"\1: \2", str(error).partition(_OBSTORE_TEXT)[0])
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "…"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__


def _codes(error: BaseException) -> Iterator[str]:
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        yield str(response.get("Error", {}).get("Code", ""))
    code: Any = getattr(error, "error_code", None)
    if code is not None:
        yield str(getattr(code, "value", code))
    if _OBSTORE_TEXT in str(error):
        yield from _CODE_TEXT.findall(str(error))


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    candidates = [getattr(error, name, None) for name in ("status_code", "status", "code")]
    if isinstance(response, dict):
        candidates.append(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    elif response is not None:
        candidates += [getattr(response, "status_code", None), getattr(response, "status", None)]
    for found in candidates:
        if isinstance(found, (int, str)) and str(found).isdigit() and 300 <= int(found) <= 599:
            return int(found)
    match = _STATUS_TEXT.search(str(error)) if _OBSTORE_TEXT in str(error) else None
    return int(match[1]) if match else None


def _of_status(status: int) -> Trouble:
    if status == 412:
        return Trouble.TAKEN
    if status in (404, 410):
        return Trouble.ABSENT
    # 409 without a code that says more: a conflict of two writes under way.
    if status in (408, 409, 425, 429) or status >= 500:
        return Trouble.TRANSIENT
    return Trouble.PERMANENT


def _of_class(error: BaseException) -> Trouble | None:
    name = type(error).__name__
    if isinstance(error, FileExistsError) or name in ("AlreadyExistsError", "PreconditionError"):
        return Trouble.TAKEN
    if isinstance(error, FileNotFoundError) or name == "NotFoundError":
        return Trouble.ABSENT
    if isinstance(error, PermissionError):
        return Trouble.PERMANENT
    if isinstance(error, (TimeoutError, ConnectionError, EOFError)):
        return Trouble.TRANSIENT
    if isinstance(error, OSError) and error.errno in _ERRNO_TRANSIENT:
        return Trouble.TRANSIENT
    if _OBSTORE_TEXT in str(error) and _NETWORK_TEXT.search(str(error)):
        return Trouble.TRANSIENT
    return None
