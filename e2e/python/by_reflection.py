"""Uses a Quire server with nothing but what it says of itself: no .proto file, no code of Quire's.

    by_reflection.py HOST:PORT VOLUME

The volume has three commits. Prints one JSON object, or fails.
"""

import json
import sys

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

METASTORE, PAGESTORE = "quire.v1.Metastore", "quire.v1.Pagestore"
PATIENCE_SECONDS = 60

address, volume = sys.argv[1:]
channel = grpc.insecure_channel(address)
database = ProtoReflectionDescriptorDatabase(channel)
pool = DescriptorPool(database)


def method(service, name):
    found = pool.FindServiceByName(service).FindMethodByName(name)
    request = message_factory.GetMessageClass(found.input_type)
    response = message_factory.GetMessageClass(found.output_type)
    kind = ("stream" if found.client_streaming else "unary") + "_" + ("stream" if found.server_streaming else "unary")
    call = getattr(channel, kind)(f"/{service}/{name}", request.SerializeToString, response.FromString)
    return request, lambda message: call(message, timeout=PATIENCE_SECONDS)


def ask(service, name, **fields):
    request, call = method(service, name)
    return call(request(**fields))


services = set(database.get_services())
assert {METASTORE, PAGESTORE, "grpc.health.v1.Health"} <= services, services

health = health_pb2_grpc.HealthStub(channel)
for service in ("", METASTORE, PAGESTORE):
    status = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_SECONDS).status
    assert status == health_pb2.HealthCheckResponse.SERVING, (service, status)

names = [name for batch in ask(METASTORE, "ListVolumes") for name in batch.names]
assert names == [volume], names

head = ask(METASTORE, "Head", volume=volume)
assert head.state == 1 and head.next_lsn == 4, head
assert head.head == ask(METASTORE, "GetCommit", volume=volume, lsn=3).commit

last = ask(METASTORE, "GetHeader", volume=volume, lsn=3).header
batches = list(ask(METASTORE, "GetHeaders", volume=volume, first_lsn=1, last=last))
assert sum(len(batch.headers) for batch in batches) == 3

segments = list(ask(PAGESTORE, "ListSegments", volume=volume))
read = sum(
    len(piece.data)
    for found in segments
    for piece in ask(PAGESTORE, "ScanSegment", volume=volume, segment=found.segment, len_bytes=found.len_bytes)
)
assert segments and read == sum(found.len_bytes for found in segments)

request, watch = method(METASTORE, "Watch")
watched = watch(iter([request(subscribe=[dict(volume=volume, after_lsn=1)])]))
seen = [next(watched).commit for _ in range(2)]
assert seen[1] == head.head
watched.cancel()

codes = {}
for name, fields in {"missing": dict(volume=volume, lsn=99), "wrong": dict(volume="a//b", lsn=1)}.items():
    try:
        ask(METASTORE, "GetCommit", **fields)
    except grpc.RpcError as error:
        codes[name] = error.code().name

print(json.dumps({"segments": len(segments), "bytes": read, "codes": codes}))
