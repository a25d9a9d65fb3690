"""GetObject, PutObject and UploadPart without botocore's machinery.

botocore spends most of a small request's processor time on choosing the endpoint, building the
request from a model and parsing the answer by one, each time anew. What it found out for one
request is the same for the next one of its bucket: the address, the region and the way to sign. It
is taken from a request that the client sent; signature, connections, proxies and TLS stay
botocore's and the client's own. Whatever is unusual goes through the client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aiobotocore.response import AioStreamingBody
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.exceptions import ClientError
from botocore.parsers import RestXMLParser

from asyncstore.backends.http_body import Body

__all__ = ["Direct"]

METHODS = {"get_object": "GET", "put_object": "PUT", "upload_part": "PUT"}
HEADERS = {
    "ContentEncoding": "Content-Encoding",
    "ContentMD5": "Content-MD5",
    "ContentType": "Content-Type",
    "ExpectedBucketOwner": "x-amz-expected-bucket-owner",
    "IfMatch": "If-Match",
    "Range": "Range",
}
OTHERS = {"Body", "Key", "PartNumber", "UploadId"}
# The client would say the same of them; of any other refusal it may know a way out, such as the
# bucket's right region.
FINAL = (404, 412, 416, 429)
SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=[^,]*/\d{8}/([^/,]+)/s3/aws4_request,")


@dataclass(frozen=True)
class _Way:
    """To the objects of a bucket: the URL that keys are appended to, and the region that signs."""

    base: str
    region: str


class Direct:
    """The short way to the objects of a client's buckets.

    Args:
        client: The aiobotocore client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._ways: dict[str, _Way] = {}
        self._seen: tuple[str, str] = ("", "")
        client.meta.events.register_last("before-send.s3", self._see)

    def _see(self, request: Any, **_: Any) -> None:
        headers = request.headers
        usual = headers.get("X-Amz-Content-SHA256") in ("UNSIGNED-PAYLOAD", b"UNSIGNED-PAYLOAD")
        authorization = headers.get("Authorization", "")
        if isinstance(authorization, bytes):
            authorization = authorization.decode()
        if usual:
            self._seen = (request.url.partition("?")[0], authorization)

    def learn(self, bucket: str, key: str) -> None:
        """The client has just done something to `key`: remember how."""
        url, authorization = self._seen
        scope = SCOPE.match(authorization)
        if bucket not in self._ways and scope and url.endswith(f"/{_quoted(key)}"):
            self._ways[bucket] = _Way(url[: -len(_quoted(key))], scope[1])

    def serves(self, operation: str, bucket: str, arguments: Mapping[str, Any]) -> bool:
        """Whether the short way is known and does all that is asked for."""
        return (
            bucket in self._ways
            and operation in METHODS
            and all(name in HEADERS or name in OTHERS for name in arguments)
            and isinstance(arguments.get("Body", b""), bytes | Body)
        )

    async def send(
        self, operation: str, bucket: str, arguments: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Send one request that `serves` agreed to.

        Args:
            operation: The client's method.
            bucket: Where the object is.
            arguments: The others, as the client's method takes them.

        Returns:
            What the client's method returns, as far as asyncstore looks at it; None when the client
            has to be asked.

        Raises:
            ClientError: As the client raises it, and whatever its HTTP session raises.
        """
        way = self._ways[bucket]
        body = arguments.get("Body", b"")
        request = AWSRequest(
            method=METHODS[operation], url=way.base + _quoted(arguments["Key"]) + _query(arguments)
        )
        for name, header in HEADERS.items():
            if name in arguments:
                request.headers[header] = arguments[name]
        if METHODS[operation] == "PUT":
            request.headers["Content-Length"] = str(
                len(body) if isinstance(body, bytes) else body.getbuffer().nbytes
            )
        request.headers["User-Agent"] = self._client.meta.config.user_agent
        # Its content is not signed, as with the client; see `s3_client.py`.
        request.context.update(client_config=self._client.meta.config)
        client: Any = self._client
        credentials = await client._request_signer._credentials.get_frozen_credentials()  # noqa: SLF001  the client's own, which may be arguments or a role
        S3SigV4Auth(credentials, "s3", way.region).add_auth(request)
        streams = operation == "get_object"
        answer = await client._endpoint.http_session.send(  # noqa: SLF001  with its connections
            AWSPreparedRequest(request.method, request.url, request.headers, body or None, streams)
        )
        if answer.status_code < 300:
            return await _result(operation, answer)
        content = await answer.content
        if answer.status_code not in FINAL and answer.status_code < 500:
            self._ways.pop(bucket, None)
            if isinstance(body, Body):
                body.seek(0)
            return None
        raise _error(operation, answer, content)


def _quoted(key: str) -> str:
    return quote(key, safe="/~")


def _query(arguments: Mapping[str, Any]) -> str:
    if "UploadId" not in arguments:
        return ""
    upload_id = quote(arguments["UploadId"], safe="")
    return f"?partNumber={arguments['PartNumber']}&uploadId={upload_id}"


async def _result(operation: str, answer: Any) -> dict[str, Any]:
    headers = answer.headers
    result: dict[str, Any] = {"ETag": headers.get("etag")}
    if operation != "get_object":
        content = await answer.content
        if b"<Error" in content:
            # S3 may begin with 200 and fail.
            answer.status_code = 500
            raise _error(operation, answer, content)
        return result
    length = headers.get("content-length")
    result["Body"] = AioStreamingBody(answer.raw, length)
    result["ContentLength"] = None if length is None else int(length)
    if "content-range" in headers:
        result["ContentRange"] = headers["content-range"]
    return result


def _error(operation: str, answer: Any, content: bytes) -> ClientError:
    parsed = RestXMLParser().parse(
        {"headers": answer.headers, "status_code": answer.status_code, "body": content}, None
    )
    return ClientError(parsed, operation)
