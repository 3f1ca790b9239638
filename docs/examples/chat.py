"""Talk to the node that runs on this machine; no event loop is needed.

Run it beside a node (p2pnode up): python docs/examples/chat.py "My name is Ada." "What is my name?"
"""

import sys

import p2pnode


def main(lines: list[str]) -> None:
    client = p2pnode.Client()  # or p2pnode.Client(state), for p2pnode up --state
    messages: list[dict[str, str]] = []
    for line in lines:
        messages.append({"role": "user", "content": line})
        with client.chat(messages, max_tokens=24) as answer:
            for event in answer:
                print(event.text, end="", flush=True)
        print()
        messages.append({"role": "assistant", "content": answer.result.text})


if __name__ == "__main__":
    try:
        main(sys.argv[1:] or ["My name is Ada.", "What is my name?"])
    except p2pnode.UserError as error:
        sys.exit(f"{error}\n  try: {error.hint}")
