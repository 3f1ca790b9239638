"""Start a node, ask it, and print the answer as it comes.

Run it: python docs/examples/generate.py "Why is the sky blue?"
"""

import sys

import trio

import p2pnode


async def main(prompt: str) -> None:
    async with p2pnode.Node() as node:
        async with node.generate(prompt, max_tokens=24) as answer:
            async for event in answer:
                print(event.text, end="", flush=True)
        done = answer.result
        print()
        print(f"{len(done.token_ids)} tokens, {done.tokens_per_s:.1f} a second: {done.finish}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "Why is the sky blue?")
