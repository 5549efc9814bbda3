"""`python -m tests.hub`: a loopback Hub to try things on, empty at each start."""

from __future__ import annotations

import argparse
import time

from tests.hub.server import serve
from tests.hub.store import Store


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--users", nargs="+", default=["ada", "ben"], metavar="NAME")
    arguments = parser.parse_args()
    store = Store()
    with serve(store, arguments.port) as hub:
        print(f"export HF_ENDPOINT={hub.url} HF_UPDATE_DOWNLOAD_COUNTS=0", flush=True)
        for name in arguments.users:
            print(f"export HF_TOKEN={store.add_user(name)}  # {name}", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
