"""`vix demo`: serves the page, until Ctrl-C."""

import argparse
import contextlib
import os
import socket
import threading
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from vix_flax.show import out
from vix_flax.user_cache import keep_compiled_programs

PORTS = range(7860, 7960)  # of which the first free one is taken, where none is asked for


def demo_command(args: argparse.Namespace) -> int:
    """`vix demo RUN [RUN…]`: a local page with classes and attention of any image."""
    if args.top_k < 1:
        raise ValueError(f"--top-k {args.top_k} must be at least 1")
    if find_spec("gradio") is None:
        raise ValueError('vix demo needs gradio: pip install "vix_flax[demo]"')
    port = free_port(args.host, args.port)
    if not args.no_compilation_cache:
        keep_compiled_programs()
    from vix_flax.run import Run

    runs = [Run.load(folder) for folder in args.folders]
    for run in runs:
        run.require_labels()
    # What is uploaded goes when the page does; gradio reads these when it is imported.
    with TemporaryDirectory(prefix="vix-demo-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        serve(runs, args, port, Path(folder))
    return 0


def serve(runs: list, args: argparse.Namespace, port: int, folder: Path) -> None:
    """Compiles, prints where the page is, and waits for Ctrl-C."""
    from vix_flax.demo_page import CSS, page, theme

    out.print(f"compiling {', '.join(run.config.model for run in runs)} …")
    blocks = page(runs, args.top_k, folder)
    try:
        _, url, _ = blocks.launch(
            server_name=args.host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            pwa=False,
            theme=theme(),
            css=CSS,
        )
        out.print(f"{url} (Ctrl-C ends it)")
        threading.Event().wait()
    finally:
        blocks.close(verbose=False)


def free_port(host: str, port: int | None) -> int:
    """The port, or the first free one of `PORTS`.

    Raises:
        ValueError: it is in use or no port, or the host is none of this machine's addresses.
    """
    if port is not None and not 0 < port < 2**16:
        raise ValueError(f"--port {port} must be from 1 to {2**16 - 1}")
    reason = ""
    for candidate in PORTS if port is None else [port]:
        with contextlib.closing(socket.socket()) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((host, candidate))
                return candidate
            except OSError as error:
                reason = error.strerror
    asked = f"--port {port}" if port is not None else f"ports {PORTS[0]} to {PORTS[-1]}"
    raise ValueError(f"--host {host}, {asked}: {reason}; choose another --port")
