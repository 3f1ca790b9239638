"""Watch a node until it serves, and cancel an answer that takes too long.

Run it: python docs/examples/watch.py
"""

import trio

import p2pnode


async def main() -> None:
    async with p2pnode.Node(mdns=False) as node:
        state = ""
        async for picture in node.watch(interval=0.1):
            if picture.state != state:
                state = picture.state
                print(f"{picture.name} is {state}")
            if state == "serving":
                break
        with trio.move_on_after(0.5) as patience:
            await node.generate("Count to a thousand.", max_tokens=2000).read()
        print("cancelled" if patience.cancelled_caught else "answered in time")
        print(f"sessions that still hold memory: {len(node.snapshot().stages)}")


if __name__ == "__main__":
    trio.run(main)
