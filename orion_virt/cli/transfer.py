# SPDX-License-Identifier: Apache-2.0
"""`orion-virt save` and `migrate`: virsh's, with what our device needs around it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click

from orion_virt.cli.complete import domain_argument
from orion_virt.cli.control import ask
from orion_virt.errors import Conflict, NotFound, OrionError

HOLD_SECONDS = 30.0  # renewed while virsh works; runs out by itself when we are killed
RENEW_SECONDS = 10.0
force_option = click.option("--force", is_flag=True, help="End the CUDA processes that run there.")
virsh_arguments = click.argument("virsh", nargs=-1, type=click.UNPROCESSED, metavar="[-- VIRSH-OPTIONS]")


@contextlib.contextmanager
def held(domain: str, force: bool) -> Iterator[dict[str, Any]]:
    """Ends the domain's processes and keeps new ones from beginning meanwhile: what workers write into its memory,
    QEMU does not see, so that what it saves would fit nothing. Raises Conflict where there are some and not `force`."""
    answer = ask("hold", domain=domain, seconds=HOLD_SECONDS, force=force)
    if answer["state"] != "running":
        raise Conflict(
            f"{answer['domain']} is not running", hint="Only a running domain can be saved or migrated with its memory"
        )
    for process in answer["ended"]:
        click.echo(
            f"ended: {process['comm']} (pid {process['pid']} in the guest); its CUDA calls fail with error 46 from now "
            "on"
        )
    done = threading.Event()
    renewer = threading.Thread(target=_renew, args=(answer["uuid"], done), daemon=True)
    renewer.start()
    try:
        yield answer
    finally:
        done.set()
        renewer.join()
        with contextlib.suppress(OrionError):  # it runs out by itself
            ask("hold", domain=answer["uuid"], seconds=0)


def _renew(uuid: str, done: threading.Event) -> None:
    while not done.wait(RENEW_SECONDS):
        with contextlib.suppress(OrionError):
            ask("hold", domain=uuid, seconds=HOLD_SECONDS, force=True)


def virsh(uri: str, *arguments: str) -> None:
    """Runs virsh with the terminal; its failure is ours, said by itself."""
    try:
        status = subprocess.run(["virsh", "-c", uri, *arguments], check=False).returncode
    except FileNotFoundError:
        raise NotFound("virsh is not installed", hint="Install libvirt-clients") from None
    if status:
        click.echo(
            "The domain is where it was. CUDA programs can start in it again; those that were ended stay so.", err=True
        )
        sys.exit(1)


@click.command()
@domain_argument
@click.option("--file", type=click.Path(), help="Where to; without it libvirt keeps it for the next start.")
@force_option
@virsh_arguments
def save(domain: str, file: str | None, force: bool, **more: Any) -> None:
    """Saves the running DOMAIN for its next start (virsh managedsave), or to a file (virsh save).

    What is on the GPU is not saved: DOMAIN's CUDA processes end. With --force they are ended, else that is refused.
    After the restore the domain has a new region identity; new programs work at once. Settings, which are in the
    metadata, stay.
    """
    with held(domain, force) as answer:
        words = ["save", answer["domain"], file] if file else ["managedsave", answer["domain"]]
        virsh(answer["uri"], *words, *more["virsh"])
    click.echo(
        f"{answer['domain']} is saved. Programs that used CUDA get error 46 after the restore; start them again."
    )


@click.command()
@domain_argument
@click.argument("destination")
@force_option
@virsh_arguments
def migrate(domain: str, destination: str, force: bool, **more: Any) -> None:
    """Migrates the running DOMAIN live to DESTINATION, a libvirt URI such as qemu+ssh://HOST/system.

    It is virsh migrate --live. What is on the GPU does not move: DOMAIN's CUDA processes end. With --force they are
    ended, else that is refused. On DESTINATION orion-virt must be installed, hook and oriond: there the domain uses
    that host's GPUs. Without them it runs, and CUDA programs in it find no device.
    """
    with held(domain, force) as answer:
        virsh(answer["uri"], "migrate", "--live", answer["domain"], destination, *more["virsh"])
    click.echo(
        f"{answer['domain']} runs at {destination}, on that host's GPUs. Programs that used CUDA before get error 46; "
        "start them again."
    )
