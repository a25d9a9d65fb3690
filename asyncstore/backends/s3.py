"""Amazon S3 and compatible servers, through s3fs and its aiobotocore client."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from asyncstore import settings, uris
from asyncstore.backends import s3_uris
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.backends.checksums import content_md5
from asyncstore.backends.http_body import body
from asyncstore.backends.s3_client import MAX_CONNECTIONS, connect
from asyncstore.backends.s3_direct import Direct
from asyncstore.backends.s3_errors import RangeNotSatisfiableError, translated
from asyncstore.backends.s3_presigned import S3Presigning
from asyncstore.concurrency import Turnstile
from asyncstore.entities import FileInfo
from asyncstore.errors import (
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
)
from asyncstore.files.reading import ContentType, LocalFile, OpenFile
from asyncstore.files.threads import run_in_thread
from asyncstore.multipart import Part
from asyncstore.sockets import Sockets

__all__ = ["S3Backend", "open_backend"]

MIB = 1024 * 1024
READ_SIZE = 256 * 1024
DELETE_BATCH = 1000
# Parsing a page of 1,000 keys would stall the loop for 20 ms.
LIST_PAGE = 500
REQUESTS_PER_TURN = 4

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
CAPABILITIES = Capabilities(
    parallel_parts=True,
    min_part_size=5 * MIB,
    max_parts=10_000,
    max_file_size=5 * 1024 * MIB,
    versions=True,
    max_concurrency=MAX_CONNECTIONS,
)


async def open_backend(uri: str, storage_options: Mapping[str, Any]) -> Backend:
    """Connect to the bucket of a URI.

    Args:
        uri: `s3://bucket/prefix`, or one with a server, as `s3_uris.FORMS` has them.
        storage_options: Arguments of `s3fs.S3FileSystem`; they go above the variables.

    Raises:
        InvalidParameterError: The URI has no bucket, or a variable or option is not acceptable.
    """
    location = s3_uris.parse(uri)
    extra_args = settings.MLFLOW_S3_UPLOAD_EXTRA_ARGS.get()
    owner = settings.MLFLOW_S3_EXPECTED_BUCKET_OWNER.get()
    action = f"open {uris.redact(uri)}"
    try:
        with translated(action):
            fs, client, sockets = await anyio.to_thread.run_sync(connect, storage_options, location)
    except TypeError as error:
        # An option of a wrong type, or that nobody has.
        raise InvalidParameterError(f"{action}: {error}") from error
    backend = S3Backend(fs, location.root, client, Direct(client), sockets, extra_args, owner)
    backend.endpoint_url = location.endpoint_url
    try:
        backend.check_extra_args()
    except InvalidParameterError:
        await backend.aclose()
        raise
    return backend


class S3Backend(Backend):
    """A prefix of a bucket."""

    def __init__(
        self,
        fs: Any,
        root: str,
        client: Any,
        direct: Direct,
        sockets: Sockets,
        extra_args: Mapping[str, Any],
        expected_bucket_owner: str | None,
    ) -> None:
        super().__init__(fs, root, CAPABILITIES)
        self._client = client
        self._direct = direct
        self._sockets = sockets
        self._extra_args = extra_args
        self._expected_bucket_owner = expected_bucket_owner
        self._members_of: dict[str, set[str]] = {}
        self._turnstile = Turnstile(REQUESTS_PER_TURN)
        self.bucket, _, self._prefix = root.partition("/")
        # Of the URI; None where the variables say it.
        self.endpoint_url: str | None = None

    def at(self, uri: str) -> Backend | None:
        """The same client for another root on the same server."""
        if uris.scheme_of(uri) not in ("s3", "s3a", *s3_uris.FORMS):
            return None
        location = s3_uris.parse(uri)
        if location.endpoint_url != self.endpoint_url:
            return None
        backend = S3Backend(
            self.fs,
            location.root,
            self._client,
            self._direct,
            self._sockets,
            self._extra_args,
            self._expected_bucket_owner,
        )
        backend.endpoint_url = self.endpoint_url
        backend._turnstile = self._turnstile
        backend.retry = self.retry
        return backend

    def check_extra_args(self) -> None:
        """Refuse upload arguments that S3 does not have.

        Raises:
            InvalidParameterError: MLFLOW_S3_UPLOAD_EXTRA_ARGS has such an argument.
        """
        known = self._members("PutObject") | self._members("CreateMultipartUpload")
        if unknown := sorted(set(self._extra_args) - known):
            raise InvalidParameterError(
                f"MLFLOW_S3_UPLOAD_EXTRA_ARGS: S3 uploads have no argument {', '.join(unknown)}"
            )

    def _members(self, operation: str) -> set[str]:
        if operation not in self._members_of:
            model = self._client.meta.service_model.operation_model(operation)
            self._members_of[operation] = set(model.input_shape.members)
        return self._members_of[operation]

    def key(self, path: str) -> str:
        """The key of an object in the bucket."""
        return "/".join(part for part in (self._prefix, path) if part)

    def shown(self, path: str) -> str:
        """An object as a person names it."""
        return f"s3://{self.bucket}/{self.key(path)}"

    @property
    def owner_args(self) -> dict[str, str]:
        """What has S3 refuse a bucket of somebody else."""
        owner = self._expected_bucket_owner
        return {"ExpectedBucketOwner": owner} if owner else {}

    def _directory_key(self, path: str) -> str:
        key = self.key(path)
        return key + "/" if key else ""

    def _path(self, key: str) -> str:
        return key.removeprefix(self._directory_key("")).removesuffix("/")

    async def call(self, operation: str, path: str, **kwargs: Any) -> Any:
        """Send one request.

        Args:
            operation: The client's method, such as `put_object`.
            path: What it is about, for the error.
            kwargs: The arguments of the method, but for the bucket and its owner.
        """
        await self._turnstile.enter()
        kwargs |= self.owner_args
        with translated(f"{operation} {self.shown(path)}"):
            if self._direct.serves(operation, self.bucket, kwargs):
                answer = await self._direct.send(operation, self.bucket, kwargs)
                if answer is not None:
                    return answer
            answer = await getattr(self._client, operation)(Bucket=self.bucket, **kwargs)
            if "Key" in kwargs:
                self._direct.learn(self.bucket, kwargs["Key"])
            return answer

    def upload_args(self, operation: str, content_type: ContentType | None = None) -> Any:
        """The extra arguments that an operation takes; the person's go above the guessed type."""
        guessed = content_type or ContentType()
        arguments = {"ContentType": guessed.type, "ContentEncoding": guessed.encoding}
        arguments = {name: value for name, value in arguments.items() if value is not None}
        members = self._members(operation)
        return arguments | {k: v for k, v in self._extra_args.items() if k in members}

    async def info(self, path: str) -> FileInfo:
        """HEAD for a file, else one listing for a directory."""
        key = self.key(path)
        if path and key:
            try:
                head = await self.call("head_object", path, Key=key)
            except NotFoundError:
                pass
            except PermissionDeniedError:
                # The answer to HEAD has no body; that of a listing says whether the keys are wrong.
                await self.call("list_objects_v2", path, Prefix=key, MaxKeys=1)
                raise
            else:
                return FileInfo(path, False, head["ContentLength"], head.get("ETag"))
        page = await self.call("list_objects_v2", path, Prefix=self._directory_key(path), MaxKeys=1)
        if path and not page.get("KeyCount", len(page.get("Contents", []))):
            raise self.missing(path)
        return FileInfo(path, True, None)

    async def _pages(self, path: str, **kwargs: Any) -> AsyncGenerator[Any]:
        prefix = self._directory_key(path)
        token: dict[str, str] = {}
        while True:
            arguments = {"Prefix": prefix, "MaxKeys": LIST_PAGE, **kwargs, **token}
            page = await self.retry.run(partial(self.call, "list_objects_v2", path, **arguments))
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _files(self, page: Any) -> list[FileInfo]:
        # A key that ends in a slash marks a directory: consoles make them.
        return [
            FileInfo(self._path(entry["Key"]), False, entry["Size"], entry.get("ETag"))
            for entry in page.get("Contents", [])
            if not entry["Key"].endswith("/")
        ]

    async def list(self, path: str) -> AsyncGenerator[FileInfo]:
        """One page at a time."""
        async for page in self._pages(path, Delimiter="/"):
            for prefix in page.get("CommonPrefixes", []):
                yield FileInfo(self._path(prefix["Prefix"]), True, None)
            for entry in self._files(page):
                yield entry

    async def walk(self, path: str) -> AsyncGenerator[FileInfo]:
        """The whole tree in one flat listing."""
        async for page in self._pages(path):
            for entry in self._files(page):
                yield entry

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """A ranged GET; the server's cut is checked, since some answer with the whole object."""
        arguments: dict[str, Any] = {}
        if start == end:
            # HTTP has no range for that.
            await self.call("head_object", path, Key=self.key(path))
            return
        if start or end is not None:
            arguments["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if etag:
            arguments["IfMatch"] = etag
        try:
            answer = await self.call("get_object", path, Key=self.key(path), **arguments)
        except RangeNotSatisfiableError:
            return
        body = answer["Body"]
        skip, left = 0, None if end is None else end - start
        whole = "ContentRange" not in answer and answer["ContentLength"] != left
        if arguments.get("Range") and whole:
            skip = start
        with translated(f"read {self.shown(path)}"):
            try:
                while left != 0 and (piece := await body.read(READ_SIZE)):
                    if skip:
                        piece, skip = piece[skip:], max(0, skip - len(piece))
                    if left is not None:
                        piece = piece[:left]
                        left -= len(piece)
                    if piece:
                        yield piece
            finally:
                # Without effect on a body that was read to its end; otherwise the connection
                # cannot be used again.
                body.close()

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """PUT with Content-MD5."""
        await self.call(
            "put_object",
            path,
            Key=self.key(path),
            Body=body(data),
            ContentMD5=await content_md5(data),
            **self.upload_args("PutObject", content_type),
        )

    async def write_file(self, file: LocalFile, source: OpenFile) -> None:
        """PUT of a large file, read by the HTTP client's own worker threads as it goes out."""

        def prepare() -> tuple[str, Any]:
            return base64.b64encode(source.md5()).decode(), source.stream()

        md5, body = await run_in_thread(prepare)
        with body:
            await self.call(
                "put_object",
                file.artifact_path,
                Key=self.key(file.artifact_path),
                Body=body,
                ContentMD5=md5,
                **self.upload_args("PutObject", file.content_type),
            )

    async def start_upload(self, path: str, content_type: ContentType) -> S3MultipartUpload:
        """CreateMultipartUpload."""
        upload_id = await self.create_upload(path, content_type)
        return S3MultipartUpload(self, path, self.key(path), upload_id)

    async def create_upload(self, path: str, content_type: ContentType) -> str:
        """CreateMultipartUpload; the upload's id."""
        answer = await self.call(
            "create_multipart_upload",
            path,
            Key=self.key(path),
            **self.upload_args("CreateMultipartUpload", content_type),
        )
        upload_id: str = answer["UploadId"]
        return upload_id

    def presigning(self) -> S3Presigning:
        """By the client's own signatures."""
        return S3Presigning(self, self._client)

    async def delete(self, paths: Sequence[str]) -> None:
        """DeleteObjects, 1,000 keys a request."""
        await self._delete_keys([self.key(path) for path in paths])

    async def _delete_keys(self, keys: Sequence[str]) -> None:
        for first in range(0, len(keys), DELETE_BATCH):
            batch = keys[first : first + DELETE_BATCH]
            answer = await self.call(
                "delete_objects",
                self._path(batch[0]),
                Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True},
            )
            for error in answer.get("Errors", []):
                with translated(f"delete s3://{self.bucket}/{error['Key']}"):
                    raise self._client.exceptions.ClientError({"Error": error}, "DeleteObjects")

    async def delete_directory(self, path: str) -> None:
        """A directory is a prefix and went with its last file, but for keys that mark it."""
        async for page in self._pages(path):
            keys = [entry["Key"] for entry in page.get("Contents", [])]
            await self._delete_keys([key for key in keys if key.endswith("/")])

    async def aclose(self) -> None:
        """Close the client and its connections."""
        await self._client.close()
        await self._sockets.hang_up()


class S3MultipartUpload:
    """An S3 multipart upload, by its upload id."""

    def __init__(self, backend: S3Backend, path: str, key: str, upload_id: str) -> None:
        self._backend = backend
        self._path = path
        self._target = {"Key": key, "UploadId": upload_id}
        self._etags: dict[int, str] = {}
        self._size = 0

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        """UploadPart with Content-MD5."""
        answer = await self._backend.call(
            "upload_part",
            self._path,
            **self._target,
            PartNumber=part.number,
            Body=body(data),
            ContentMD5=await content_md5(data),
            **self._backend.upload_args("UploadPart"),
        )
        self._etags[part.number] = answer["ETag"]
        self._size += part.size

    async def complete(self) -> None:
        """CompleteMultipartUpload.

        Raises:
            IntegrityError: The upload is gone and the object is not the one that was sent.
        """
        parts = [{"PartNumber": n, "ETag": self._etags[n]} for n in sorted(self._etags)]
        try:
            await self._backend.call(
                "complete_multipart_upload",
                self._path,
                **self._target,
                MultipartUpload={"Parts": parts},
                **self._backend.upload_args("CompleteMultipartUpload"),
            )
        except NotFoundError as error:
            # The answer to an earlier attempt may have been lost: then the object is there.
            found = await self._backend.info(self._path)
            if found.file_size != self._size:
                raise IntegrityError(f"{error}; the file that is there is another one") from error

    async def abort(self) -> None:
        """AbortMultipartUpload; an upload that is already gone is no error."""
        try:
            await self._backend.call("abort_multipart_upload", self._path, **self._target)
        except NotFoundError:
            return
