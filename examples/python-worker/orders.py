"""A worker with one microservice: it greets over HTTP, asks for help at /help, and knows how many serve at /peers."""

import asyncio

from cocktail_worker import MicroService, Refused, Worker


class Orders(MicroService):
    async def init(self, context):
        self.context, self.writers, self.peers = context, set(), []
        self.following = asyncio.create_task(self.follow())
        self.server = await asyncio.start_server(self.answer, sock=context.listen("http"))

    async def follow(self):
        async for self.peers in self.context.endpoints(self.context.unit, "http"):
            pass

    async def close(self):
        self.following.cancel()
        self.server.close()
        for writer in list(self.writers):
            writer.close()

    async def answer(self, reader, writer):
        context = self.context
        self.writers.add(writer)
        try:
            while line := await reader.readline():
                while await reader.readline() not in (b"\r\n", b""):
                    pass
                path = line.split()[1].decode()
                try:
                    with context.request():
                        if path == "/help":
                            context.request_extension("too much to do")
                        if path.startswith("/slow?"):
                            await asyncio.sleep(int(path[6:]) / 1000)
                        body = f"{context.config['greeting']} {context.container} {context.revision}\n"
                        if path == "/peers":
                            body = f"{len(self.peers)}\n"
                        head = "HTTP/1.1 200 OK"
                except Refused:
                    head, body = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close", "leaving\n"
                writer.write(f"{head}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
                await writer.drain()
        except (ConnectionError, IndexError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()


if __name__ == "__main__":
    Worker({"orders": Orders}, build="python").run()
