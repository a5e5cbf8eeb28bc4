"""A network namespace with one cable to this machine, for a replica that can be cut off."""
import itertools
import os
import subprocess

NUMBERS = itertools.count(os.getpid())  # a cable that is taken away is there a little longer


def run(*args):
    subprocess.run(list(map(str, args)), check=True, capture_output=True, text=True)


class Namespace:
    """near is this machine's end of the cable, far the namespace's."""

    def __init__(self):
        number = next(NUMBERS) % 250
        self.name = f"muster-drill-{os.getpid()}-{number}"
        self.near, self.far = f"10.213.{number}.1", f"10.213.{number}.2"
        self.cable = f"mdrill{number}"
        self.prefix = ["ip", "netns", "exec", self.name]

    def __enter__(self):
        run("ip", "netns", "add", self.name)
        try:
            run("ip", "link", "add", self.cable, "type", "veth", "peer", "name", "far0", "netns", self.name)
            run("ip", "addr", "add", f"{self.near}/24", "dev", self.cable)
            run("ip", "link", "set", self.cable, "up")
            for command in (["addr", "add", f"{self.far}/24", "dev", "far0"], ["link", "set", "far0", "up"], ["link", "set", "lo", "up"]):
                run("ip", "-n", self.name, *command)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        run("ip", "netns", "del", self.name)  # and with it the cable and its rules

    def rule(self, action, chain, *match):
        """In the namespace only; it goes with it."""
        run(*self.prefix, "iptables", action, chain, *match, "-j", "DROP")
