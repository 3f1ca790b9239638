"""Which of some texts is nearest to a question? By the embeddings of a node.

Run it: python docs/examples/embed.py
"""

import sys

import trio

import p2pnode

TEXTS = ["Cats sleep most of the day.", "The train leaves at noon.", "Dogs like to run."]
QUESTION = "What do animals do?"


def likeness(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the cosine of the angle between two vectors."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    sizes = sum(a * a for a in one) * sum(b * b for b in other)
    return float(product / sizes**0.5)


async def main() -> None:
    async with p2pnode.Node(mdns=False) as node:
        made = await node.embed([QUESTION, *TEXTS])
    question, *vectors = made.vectors
    scores = [likeness(question, vector) for vector in vectors]
    for score, text in sorted(zip(scores, TEXTS, strict=True), reverse=True):
        print(f"{score:.3f}  {text}")


if __name__ == "__main__":
    try:
        trio.run(main)
    except p2pnode.UserError as error:
        sys.exit(f"{error}\n  try: {error.hint}")
