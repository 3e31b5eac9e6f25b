"""Reads and writes capture files with Python packages.

    readers.py read scapy|scapy-pcap|dpkt|dpkt-pcap|python-pcapng FILE
    readers.py write scapy|scapy-pcap|dpkt|python-pcapng FILE

`read` prints a JSON object for each packet: the facts that the package reports. `write` writes the packets of `PACKETS`,
whose times every package can express.
"""

import json
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

# Seconds, a fraction in microseconds, and the bytes.
PACKETS = [
    (1_700_000_000, 5, bytes(range(60))),
    (1_700_000_001, 999_999, b"\xff" * 6 + b"\x02\0\0\0\0\x01\x08\x06" + b"\0" * 33),
]


def scapy_pcapng(path: str) -> Iterator[dict[str, Any]]:
    from scapy.utils import RawPcapNgReader

    for data, facts in RawPcapNgReader(path):
        ticks = facts.tshigh << 32 | facts.tslow
        yield {
            "time": ticks * 1_000_000_000 // facts.tsresol,
            "data": data.hex(),
            "length": facts.wirelen,
            "link": facts.linktype,
            "name": facts.ifname.decode(),
            "direction": facts.direction,
            "comments": [comment.decode() for comment in facts.comments or []],
        }


def scapy_pcap(path: str) -> Iterator[dict[str, Any]]:
    from scapy.utils import RawPcapReader

    reader = RawPcapReader(path)
    unit = 1 if reader.nano else 1000
    for data, facts in reader:
        time = facts.sec * 1_000_000_000 + facts.usec * unit
        yield {"time": time, "data": data.hex(), "length": facts.wirelen, "link": reader.linktype}


def dpkt_reader(kind: str) -> Callable[[str], Iterator[dict[str, Any]]]:
    def read(path: str) -> Iterator[dict[str, Any]]:
        import dpkt

        with open(path, "rb") as file:
            reader = dpkt.pcap.Reader(file) if kind == "pcap" else dpkt.pcapng.Reader(file)
            for time, data in reader:
                # Its times are decimals, or floats that do not have nanoseconds.
                exact = int(Decimal(time) * 1_000_000_000)
                yield {"time": exact, "data": bytes(data).hex(), "link": reader.datalink()}

    return read


def python_pcapng(path: str) -> Iterator[dict[str, Any]]:
    from pcapng import FileScanner
    from pcapng.blocks import EnhancedPacket

    with open(path, "rb") as file:
        for block in FileScanner(file):
            if isinstance(block, EnhancedPacket):
                ticks = block.timestamp_high << 32 | block.timestamp_low
                interface = block.interface
                yield {
                    "time": round(ticks * interface.timestamp_resolution * 1_000_000_000)
                    if interface.timestamp_resolution != 1e-9
                    else ticks,
                    "data": block.packet_data.hex(),
                    "length": block.packet_len,
                    "link": interface.link_type,
                    "name": interface.options["if_name"],
                    "dropped": block.options.get("epb_dropcount", 0),
                    "comments": block.options.get_all("opt_comment") if "opt_comment" in block.options else [],
                }


def write_scapy(path: str) -> None:
    from scapy.layers.l2 import Ether
    from scapy.utils import PcapNgWriter

    writer = PcapNgWriter(path)
    for second, fraction, data in PACKETS:
        packet = Ether(data)
        packet.time = Decimal(second) + Decimal(fraction) / 1_000_000
        writer.write(packet)
    writer.close()


def write_scapy_pcap(path: str) -> None:
    from scapy.utils import RawPcapWriter

    writer = RawPcapWriter(path, linktype=1, nano=True, endianness=">")
    writer.write_header(None)
    for second, fraction, data in PACKETS:
        writer.write_packet(data, sec=second, usec=fraction * 1000)
    writer.close()


def write_dpkt(path: str) -> None:
    import dpkt

    with open(path, "wb") as file:
        writer = dpkt.pcapng.Writer(file)
        for second, fraction, data in PACKETS:
            writer.writepkt(data, ts=second + fraction / 1_000_000)


def write_python_pcapng(path: str) -> None:
    from pcapng import FileWriter
    from pcapng.blocks import EnhancedPacket, InterfaceDescription, SectionHeader

    section = SectionHeader(endianness=">", options={"shb_userappl": "python-pcapng"})
    interface = section.new_member(
        InterfaceDescription, link_type=1, options={"if_name": "eth0", "if_description": "test"}
    )
    with open(path, "wb") as file:
        writer = FileWriter(file, section)
        for second, fraction, data in PACKETS:
            packet = section.new_member(EnhancedPacket, options={"opt_comment": "remark"})
            ticks = second * 1_000_000 + fraction
            packet.timestamp_high, packet.timestamp_low = ticks >> 32, ticks & 0xFFFF_FFFF
            packet.packet_data = data
            packet.packet_len = len(data)
            writer.write_block(packet)
    assert interface.link_type == 1


READERS = {
    "scapy": scapy_pcapng,
    "scapy-pcap": scapy_pcap,
    "dpkt": dpkt_reader("pcapng"),
    "dpkt-pcap": dpkt_reader("pcap"),
    "python-pcapng": python_pcapng,
}
WRITERS = {
    "scapy": write_scapy,
    "scapy-pcap": write_scapy_pcap,
    "dpkt": write_dpkt,
    "python-pcapng": write_python_pcapng,
}

if __name__ == "__main__":
    _, action, package, path = sys.argv
    if action == "write":
        WRITERS[package](path)
    else:
        for packet in READERS[package](path):
            print(json.dumps(packet))
