"""A collector of OTLP traces: says on which port it listens, then one JSON object a span."""

import json
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        for resource in request.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope in resource.scope_spans:
                for span in scope.spans:
                    told = {
                        "service": service,
                        "name": span.name,
                        "trace": span.trace_id.hex(),
                        "span": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "status": next((a.value.int_value for a in span.attributes if a.key == "rpc.grpc.status_code"), None),
                    }
                    print(json.dumps(told), flush=True)
        return trace_service_pb2.ExportTraceServiceResponse()


server = grpc.server(futures.ThreadPoolExecutor(2))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)
print(json.dumps({"port": server.add_insecure_port("127.0.0.1:0")}), flush=True)
server.start()
server.wait_for_termination()
