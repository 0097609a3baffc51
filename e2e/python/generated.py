"""Uses a Quire server through code generated from its .proto files, with a token.

    generated.py HOST:PORT VOLUME PROTO_FOLDER TOKEN

The volume has two commits, the first of which has a segment. Prints one JSON object, or fails.
"""

import json
import sys
import tempfile
from pathlib import Path

import grpc
from grpc_tools import protoc

PATIENCE_SECONDS = 60

address, volume, protos, token = sys.argv[1:]
generated = tempfile.mkdtemp()
files = [str(path.relative_to(protos)) for path in Path(protos).rglob("*.proto")]
words = ["protoc", f"-I{protos}", f"--python_out={generated}", f"--grpc_python_out={generated}", *files]
assert protoc.main(words) == 0
sys.path.insert(0, generated)

from quire.v1 import metastore_pb2, metastore_pb2_grpc, pagestore_pb2, pagestore_pb2_grpc  # noqa: E402

channel = grpc.insecure_channel(address)
log, pages = metastore_pb2_grpc.MetastoreStub(channel), pagestore_pb2_grpc.PagestoreStub(channel)
asked = {"timeout": PATIENCE_SECONDS, "metadata": [("authorization", f"Bearer {token}")]}

names = [name for batch in log.ListVolumes(metastore_pb2.ListVolumesRequest(), **asked) for name in batch.names]
assert names == [volume], names
opened = log.Open(metastore_pb2.HeadRequest(volume=volume), **asked)
assert opened.head.state == metastore_pb2.HeadResponse.LIVE and len(opened.headers) == 2, opened

segments = list(pages.ListSegments(pagestore_pb2.ListSegmentsRequest(volume=volume), **asked))
bytes_read = 0
for found in segments:
    request = pagestore_pb2.SegmentRequest(volume=volume, segment=found.segment, len_bytes=found.len_bytes)
    bytes_read += sum(len(piece.data) for piece in pages.ScanSegment(request, **asked))

subscription = metastore_pb2.WatchRequest.Subscription(volume=volume, after_lsn=1)
watched = log.Watch(iter([metastore_pb2.WatchRequest(subscribe=[subscription])]), **asked)
assert next(watched).commit == opened.head.head
watched.cancel()

codes = {}
for name, call in {
    "no token": lambda: log.Head(metastore_pb2.HeadRequest(volume=volume), timeout=PATIENCE_SECONDS),
    "another volume": lambda: log.Head(metastore_pb2.HeadRequest(volume="secret"), **asked),
    "writing": lambda: log.Delete(metastore_pb2.DeleteRequest(volume=volume, expected_lsn=2), **asked),
}.items():
    try:
        call()
    except grpc.RpcError as error:
        codes[name] = error.code().name

print(json.dumps({"bytes": bytes_read, "codes": codes}))
