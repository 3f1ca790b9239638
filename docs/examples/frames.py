"""Programs send each other frames through their nodes: an Ask, and a Critique in answer.

Run it: python docs/examples/frames.py
"""

import numpy as np
import trio

import p2pnode


def vector(*numbers: float) -> p2pnode.Slice:
    return p2pnode.Slice(p2pnode.DType.F16, (len(numbers),), np.array(numbers, "<f2").tobytes())


async def answer(node: p2pnode.Node, frames: p2pnode.Frames) -> None:
    """Answer each Ask with a Critique."""
    async for received in frames:
        message = received.message
        if isinstance(message, p2pnode.Ask):
            print(f"{received.name} asks: {message.context}")
            said = p2pnode.Critique(
                stream_id=message.stream_id,
                frame_seq=message.frame_seq + 1,
                space_hash32=message.space_hash32,
                divergence=vector(0.25, -0.5),
                explanation={"answer": "whoever holds the last layers"},
            )
            node.send_frame(received.peer, said)


async def main() -> None:
    async with (
        p2pnode.Node(name="one", mdns=False) as one,
        p2pnode.Node(name="two", mdns=False, layers="none", invite=one.invite()) as two,
        trio.open_nursery() as nursery,
    ):
        async for picture in two.watch(interval=0.1):
            if any(peer.connected for peer in picture.peers):
                break
        with one.frames() as questions, two.frames() as answers:
            nursery.start_soon(answer, one, questions)
            ask = p2pnode.Ask(
                stream_id=1,
                frame_seq=0,
                space_hash32=picture.space_hash32,  # a peer of another space refuses it
                embedding=(vector(0.5, 1.0),),
                context="Who draws the tokens?",
            )
            two.send_frame("one", ask)
            received = await anext(answers)
            if isinstance(received.message, p2pnode.Critique):
                print(f"{received.name} answers: {received.message.explanation}")


if __name__ == "__main__":
    trio.run(main)
