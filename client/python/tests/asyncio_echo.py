"""A server and a client on one `asyncio` loop. Prints what the client receives."""

import asyncio


async def serve(reader, writer):
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()


async def talk():
    """Sends a line to a server of this loop. Returns the response."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        response = await reader.read()
        writer.close()
        await writer.wait_closed()
    return response


if __name__ == "__main__":
    print(asyncio.run(talk()))
