"""Two nodes in one process: each holds half of a model, and they answer together.

On two machines it is the same: print the code on one, give it to Node(invite=code) on the other.

Run it: python docs/examples/two_nodes.py
"""

import trio

import p2pnode

HALVES = ("0:15", "15:30")  # of the 30 layers of smollm2-135m


async def main() -> None:
    async with p2pnode.Node(name="one", layers=HALVES[0], mdns=False) as one:
        code = one.invite()
        async with p2pnode.Node(name="two", layers=HALVES[1], mdns=False, invite=code) as two:
            answer = await two.generate("The capital of France is", raw=True, max_tokens=8).read()
            print(answer.text)
            if answer.plan is not None:
                for stage in answer.plan.stages:
                    print(f"{stage.name}: layers {stage.layers.start} to {stage.layers.stop - 1}")


if __name__ == "__main__":
    trio.run(main)
