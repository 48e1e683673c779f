"""A worker of cocktail in Python: registers, loads what it is told, and goes on serving while its Manager is away.

    class Orders(MicroService):
        async def init(self, context): ...

    Worker({"orders": Orders}).run()

The protocol is cocktail-agent/proto/worker.proto. `worker_pb2.py` and `worker_pb2_grpc.py` are generated from it:

    python -m grpc_tools.protoc -I cocktail-agent/proto --python_out=. --grpc_python_out=. worker.proto
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import socket

import grpc

import worker_pb2 as pb
import worker_pb2_grpc

# Seconds before a session is opened again: first and longest.
PAUSE = (0.02, 1.0)
# Requests for help and reports that wait for the next session.
KEPT = 32
# Only these have no sense to be tried again.
FINAL = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.FAILED_PRECONDITION)


class MicroService:
    """Something that a worker can load. What is not overridden does nothing."""

    async def init(self, context):
        """Do what is needed before the first request. What it raises is the reason that `ps` shows."""

    async def drain(self):
        """Return when nothing is left that the count of `context.request()` does not know."""

    async def close(self):
        """Give back what `init` took."""


class Context:
    """What a microservice is given."""

    def __init__(self, worker, assign, name):
        self._worker, self._assign, self.name = worker, assign, name
        self.config = next(json.loads(one.config) for one in assign.microservices if one.name == name)
        self.container = os.environ["COCKTAIL_CONTAINER"]
        self.unit = f"{assign.service}/{assign.map}/{assign.unit}"
        self.revision = assign.revision

    def listen(self, name):
        """A listening socket at a port of the Unit."""
        port = next((port for port in self._assign.ports if port.name == name), None)
        if port is None:
            raise KeyError(f"the unit has no port {name!r}")
        if port.inherited:
            return _inherited(port.port)
        try:
            return socket.create_server((port.address or "127.0.0.1", port.port), backlog=1024)
        except OSError as error:
            if error.errno == 98:
                self._worker.taken = name
            raise

    async def endpoints(self, unit, port):
        """Where the containers of another Unit listen, now and after each change; `unit` is `service/map/unit`.

        async for addresses in context.endpoints("shop/prod/stock", "http"): ...

        While nobody knows, what was said last stays true. It never ends."""
        pause = PAUSE[0]
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                async with _channel() as channel:
                    async for table in worker_pb2_grpc.WorkersStub(channel).Watch(pb.WatchRequest(unit=unit)):
                        own = (one for one in table.endpoints if one.port_name == port)
                        yield [(it.host, it.port) for one in own for it in one.backends]
                        pause = PAUSE[0]
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, PAUSE[1])

    @contextlib.contextmanager
    def request(self):
        """Counts one request for as long as it takes. Raises `Refused` when the worker is about to go."""
        with self._worker.counting():
            yield

    def request_extension(self, reason):
        """Asks for one more container of the Unit."""
        self._worker.tell(extend_request=pb.ExtendRequest(microservice=self.name, reason=reason))

    def report_degraded(self, error):
        """Something is wrong, and the worker serves."""
        self._report(pb.SEVERITY_DEGRADED, error)

    def report_broken(self, error):
        """The worker cannot serve: another container takes its place."""
        self._report(pb.SEVERITY_BROKEN, error)

    def set_queue(self, length):
        """How much work waits in the worker."""
        self._worker.queue = length

    def set_metric(self, name, value):
        """A number of the worker's own, to be scaled by."""
        self._worker.custom[name] = float(value)

    def _report(self, severity, error):
        report = pb.ErrorReport(microservice=self.name, severity=severity, error=str(error))
        self._worker.tell(error_report=report)


class Refused(Exception):
    """Nothing new begins any more: answer 503, with Retry-After."""


class Worker:
    """A program that can load some microservices, by name."""

    def __init__(self, microservices, build=""):
        self.microservices, self.build = microservices, build
        self.in_flight = self.requests = self.queue = 0
        self.custom, self.taken = {}, None
        self._loaded, self._assignment, self._outcome = [], 0, None
        self._refusing, self._key, self._outbox, self._kept = False, None, None, []

    def run(self):
        """Runs until SIGTERM or SIGINT; then it leaves as it would for a drain."""
        asyncio.run(self._run())

    async def _run(self):
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        sessions = asyncio.create_task(self._sessions())
        waiting = asyncio.create_task(ended.wait())
        await asyncio.wait((sessions, waiting), return_when=asyncio.FIRST_COMPLETED)
        await self._drain()
        await self._unload()
        if sessions.done():
            sessions.result()
        sessions.cancel()

    async def _sessions(self):
        pause = PAUSE[0]
        while True:
            try:
                await self._session()
                pause = PAUSE[0]
            except grpc.aio.AioRpcError as error:
                if error.code() in FINAL:
                    raise SystemExit(f"the manager refuses this worker: {error.details()}") from error
            self._outbox = None
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, PAUSE[1])

    async def _session(self):
        outbox = asyncio.Queue(maxsize=64)
        outbox.put_nowait(self._first())

        async def messages():
            while True:
                yield await outbox.get()

        async with _channel() as channel:
            call = worker_pb2_grpc.WorkersStub(channel).Session(messages())
            usage = None
            try:
                async for message in call:
                    kind = message.WhichOneof("kind")
                    if kind == "registered":
                        self._key, self._outbox = message.registered.key, outbox
                        self._say_outcome()
                        kept, self._kept = self._kept, []
                        for one in kept:
                            self.say(**one)
                        usage = asyncio.create_task(self._tell_usage(message.registered.usage_every_ms / 1000))
                    elif kind == "assign":
                        await self._assign(message.assign)
                    elif kind == "drain" and message.drain.assignment == self._assignment:
                        await self._drain()
                        self._became(drained=pb.Drained(assignment=self._assignment))
                    elif kind == "unload" and message.unload.assignment == self._assignment:
                        await self._unload()
                        self._became(unloaded=pb.Unloaded(assignment=self._assignment))
            finally:
                if usage:
                    usage.cancel()

    def _first(self):
        container, pid = os.environ["COCKTAIL_CONTAINER"], os.getpid()
        if self._key:
            resume = pb.Resume(container=container, key=self._key, pid=pid, assignment=self._assignment)
            return pb.FromWorker(resume=resume)
        token, names = os.environ["COCKTAIL_TOKEN"], list(self.microservices)
        register = pb.Register(container=container, token=token, pid=pid, build=self.build, microservices=names)
        return pb.FromWorker(register=register)

    async def _assign(self, assign):
        if assign.assignment <= self._assignment:
            # Told again, perhaps because what was said of it was lost.
            return self._say_outcome()
        await self._unload()
        self._assignment, self._outcome = assign.assignment, None
        self._refusing, self.requests, self.queue, self.custom = False, 0, 0, {}
        for wanted in assign.microservices:
            try:
                self.taken = None
                if wanted.name not in self.microservices:
                    raise LookupError(f"this worker has no microservice {wanted.name!r}")
                service = self.microservices[wanted.name]()
                await service.init(Context(self, assign, wanted.name))
                self._loaded.append(service)
            except Exception as error:  # Whatever a microservice fails with is its reason.
                await self._unload()
                return self._became(
                    failed=pb.Failed(
                        assignment=assign.assignment,
                        microservice=wanted.name,
                        error=str(error) or type(error).__name__,
                        port_taken=self.taken or "",
                    )
                )
        self._became(ready=pb.Ready(assignment=assign.assignment))

    async def _drain(self):
        self._refusing = True
        drains = (service.drain() for service in self._loaded)
        for error in await asyncio.gather(*drains, return_exceptions=True):
            if isinstance(error, Exception):
                logging.error("drain failed", exc_info=error)
        while self.in_flight:
            await asyncio.sleep(0.005)

    async def _unload(self):
        self._refusing = True
        while self._loaded:
            try:
                await self._loaded.pop().close()
            except Exception:
                logging.exception("close failed")

    @contextlib.contextmanager
    def counting(self):
        if self._refusing:
            raise Refused
        self.in_flight += 1
        self.requests += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def say(self, **kind):
        """Says something; what cannot be said now because very much was said is dropped."""
        if self._outbox:
            with contextlib.suppress(asyncio.QueueFull):
                self._outbox.put_nowait(pb.FromWorker(**kind))

    def tell(self, **kind):
        """Says something once: while nobody is there it waits, as far as there is room."""
        if self._outbox:
            self.say(**kind)
        elif len(self._kept) < KEPT:
            self._kept.append(kind)

    def _became(self, **outcome):
        self._outcome = outcome
        self._say_outcome()

    def _say_outcome(self):
        if self._outcome:
            self.say(**self._outcome)

    async def _tell_usage(self, every):
        while True:
            await asyncio.sleep(max(every, 0.1))
            usage = pb.Usage(in_flight=self.in_flight, requests=self.requests, queue=self.queue, custom=self.custom)
            self.say(usage=usage)


def _channel():
    """A connection to whoever runs this worker."""
    # Without it the path of the socket would be the authority, which no HTTP/2 server has to take.
    options = [("grpc.default_authority", "localhost"), ("grpc.max_receive_message_length", 32 << 20)]
    return grpc.aio.insecure_channel(f"unix:{os.environ['COCKTAIL_SOCKET']}", options)


def _inherited(port):
    """The inherited socket of a port (LISTEN_FDS)."""
    for number in range(3, 3 + int(os.environ.get("LISTEN_FDS", "0"))):
        own = socket.socket(fileno=os.dup(number))
        if own.getsockname()[1] == port:
            return own
        own.close()
    raise LookupError(f"the socket of port {port} was not inherited")
