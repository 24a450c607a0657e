"""Sends every packet of a TUN device back after a while: python3 delay.py DEVICE MILLISECONDS."""

import collections
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
PACKETS_MAX = 20_000

device, delay = sys.argv[1], float(sys.argv[2]) / 1000
tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TUN | IFF_NO_PI))
print("ready", flush=True)

waiting = collections.deque()
while True:
    timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
    if select.select([tun], [], [], timeout)[0]:
        try:
            packet = os.read(tun, 65536)
            if len(waiting) < PACKETS_MAX:
                waiting.append((time.monotonic() + delay, packet))
        except OSError:
            # The device is not up yet, or already gone.
            time.sleep(0.001)
    while waiting and waiting[0][0] <= time.monotonic():
        try:
            os.write(tun, waiting.popleft()[1])
        except OSError:
            pass
