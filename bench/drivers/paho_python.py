"""paho-python as the benchmarks use it: the scenarios of bench/suites/ with the same parameters and figures.

Started by bench_clients with key=value arguments; bench/harness.hpp tells how a child asks and reports. At its best: a
network thread of the library's own (loop_start), max_inflight_messages = the window, MQTT 3.1.1 as by default,
completions counted by on_publish. Python's own heap hides its allocations, which are not counted.
"""

import os
import random
import resource
import socket
import struct
import sys
import threading
import time

import json

TOPIC = "bench/publish/topic1"
RECEIVE_TOPIC = "bench/receive/topic1"
STUCK_SECONDS = 30
BURST_MESSAGES = 10_000
PACE_NS = 100_000


class Failure(Exception):
    """Why there are no figures."""


def report(message):
    """The answer to the parent; nothing comes after it."""
    fd = int(os.environ.get("FULMAR_BENCH_REPORT_FD", "1"))
    data = (json.dumps(message) + "\n").encode()
    while data:
        data = data[os.write(fd, data):]
    os._exit(0)


def ask(command):
    """What sink_control() of bench/sink.hpp answers."""
    os.write(int(os.environ["FULMAR_BENCH_REPORT_FD"]), f"? {command}\n".encode())
    answer = sys.stdin.readline().strip()
    if answer in ("", "error"):
        raise Failure(f"the sink does not understand: {command}")
    return answer


def ask_number(command):
    return int(ask(command))


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0005)
    return True


def clock_ns():
    """The median distance of two time stamps with nothing between them."""
    stamps = [time.perf_counter_ns() for _ in range(1001)]
    return sorted(b - a for a, b in zip(stamps, stamps[1:]))[500]


def percentiles(values):
    values = sorted(values)
    pick = lambda fraction: values[min(len(values) - 1, max(0, int(fraction * len(values) + 0.5) - 1))]
    return {"caller_ns_p50": pick(0.5), "caller_ns_p99": pick(0.99), "caller_ns_p999": pick(0.999),
            "caller_ns_max": values[-1]}


def distribution(values):
    """16 buckets per power of two, as Histogram::distribution of bench/harness.hpp."""
    buckets = {}
    for value in values:
        shift = max(0, int(value).bit_length() - 5)
        top = ((int(value) >> shift) + 1 << shift) - 1
        buckets[top] = buckets.get(top, 0) + 1
    return sorted(buckets.items())


def syscalls(parameters):
    """System calls so far, counted by the kernel; None where it does not."""
    fd = parameters.int("syscalls_fd")
    return struct.unpack("=Q", os.read(fd, 8))[0] if fd else None


class Client:
    def __init__(self, port, window, offline=False, queue_messages=0, number=0):
        self.completed = 0
        self.received = 0
        self.up = False
        self.port = port
        self.client = mqtt.Client(client_id=f"bench-paho-python-{number}")
        self.client.max_inflight_messages_set(window)
        self.client.max_queued_messages_set(queue_messages)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = self.on_connect
        self.client.on_disconnect = self.on_disconnect
        self.client.on_publish = self.on_publish
        self.client.on_message = self.on_message
        self.client.on_socket_open = lambda c, u, s: s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client.connect_async("127.0.0.1", port, 60)
        self.client.loop_start()

    def on_connect(self, client, userdata, flags, reason):
        self.up = reason == 0

    def on_disconnect(self, client, userdata, reason):
        self.up = False

    def on_publish(self, client, userdata, mid):
        self.completed += 1

    def on_message(self, client, userdata, message):
        self.received += 1

    def wait_connected(self):
        if not wait_until(lambda: self.up, 10):
            raise Failure("no CONNACK from the sink within 10 s")
        return self


class Traffic:
    """What was published through one client, with back-pressure, and what the sink saw of it."""

    def __init__(self, client, qos, payload_bytes, outstanding_max, burst):
        self.client, self.qos, self.outstanding_max, self.burst_size = client, qos, outstanding_max, burst
        self.payload = b"x" * payload_bytes
        self.published = 0
        self.arrived_before = ask_number("arrived")
        self.violations_before = ask_number("violations")

    def publish(self, count, seconds):
        deadline = time.monotonic() + seconds
        send, client = self.client.client.publish, self.client
        for i in range(count):
            if i % 64 == 0 or self.published - client.completed >= self.outstanding_max:
                if time.monotonic() >= deadline:
                    return
                if not wait_until(lambda: self.published - client.completed < self.outstanding_max, STUCK_SECONDS):
                    raise Failure(self.stuck())
            if send(TOPIC, self.payload, self.qos).rc != 0:
                raise Failure("the library refused a message")
            self.published += 1

    def arrived(self):
        return ask_number("arrived") - self.arrived_before

    def drain(self):
        if not wait_until(lambda: self.client.completed >= self.published, STUCK_SECONDS):
            raise Failure(self.stuck())
        self.finished_ns = time.perf_counter_ns()
        if not wait_until(lambda: self.arrived() >= self.published, STUCK_SECONDS):
            raise Failure(self.stuck())
        violations = ask_number("violations") - self.violations_before
        if self.arrived() != self.published or violations:
            raise Failure(f"the sink received {self.arrived()} messages of {self.published} and {violations} malformed "
                          "packets")
        if self.qos == 0:
            self.finished_ns = ask_number("last_publish_ns")

    def stuck(self):
        return (f"stuck for {STUCK_SECONDS} s: {self.published} published, {self.client.completed} completed, "
                f"{self.arrived()} arrived at the sink")

    def burst(self, overhead, deadline_ns=None):
        """The time of each call, and how many were refused."""
        send, now = self.client.client.publish, time.perf_counter_ns
        stamps, refused = [now()], 0
        for _ in range(self.burst_size):
            rc = send(TOPIC, self.payload, self.qos).rc
            stamps.append(now())
            # 4, no connection, is queued all the same unless QoS 0
            refused += rc not in (0, 4) or (rc == 4 and self.qos == 0)
            if deadline_ns is not None and stamps[-1] > deadline_ns:
                break
        self.published += len(stamps) - 1 - refused
        return [max(0, b - a - overhead) for a, b in zip(stamps, stamps[1:])], refused


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def outstanding_for(qos, window):
    # Found by trying 100 to 20,000: the fewer are in flight, the faster it is.
    return 20_000 if qos == 0 else min(window, 100)


def publish(parameters, counts=False):
    qos, window, seconds = parameters.int("qos"), parameters.int("window"), parameters.float("seconds")
    client = Client(parameters.int("port"), window).wait_connected()
    traffic = Traffic(client, qos, parameters.int("payload"), parameters.int("outstanding") or outstanding_for(qos, window),
                      BURST_MESSAGES)
    figures = {}
    if not counts:
        overhead, times, begin = clock_ns(), [], time.monotonic()
        while not times or time.monotonic() - begin < seconds:
            warm = traffic.published > 0
            burst, refused = traffic.burst(overhead)
            if refused:
                raise Failure("the library refused a message")
            traffic.drain()
            if warm:
                times += burst
            time.sleep(0.002)
        figures |= percentiles(times) | {"clock_ns": overhead}

    before, begin = traffic.published, time.monotonic()
    traffic.publish(parameters.int("messages") // 4 or 1 << 60, seconds / 4)
    traffic.drain()
    rate = (traffic.published - before) / (time.monotonic() - begin)
    count = parameters.int("messages") or max(1_000, int(rate * seconds))
    cpu, calls, begin_ns = cpu_seconds(), syscalls(parameters), time.perf_counter_ns()
    traffic.publish(count, 1e9)
    traffic.drain()
    if not counts:
        figures["messages_per_s"] = count / ((traffic.finished_ns - begin_ns) * 1e-9)
        figures["cpu_s_per_million"] = (cpu_seconds() - cpu) / count * 1e6
    elif calls is not None:
        figures["syscalls_per_message"] = (syscalls(parameters) - calls) / count
    return {"figures": figures}


def flood(client, parameters, seconds):
    before = client.received
    ask(f"flood {parameters.int('qos')} {parameters.int('payload')} {int(seconds * 1000)}")
    if not wait_until(lambda: ask("flooding") == "0", STUCK_SECONDS):
        raise Failure("the flood does not end")
    count = ask_number("flooded")
    if count == 0:
        raise Failure("the sink knows of no subscription")
    if not wait_until(lambda: client.received - before >= count, STUCK_SECONDS):
        raise Failure(f"stuck for {STUCK_SECONDS} s: {count} messages sent, {client.received - before} handled")
    return count, ask_number("flood_began_ns"), time.perf_counter_ns()


def receive(parameters, counts=False):
    seconds = parameters.float("seconds")
    client = Client(parameters.int("port"), 1_000).wait_connected()
    client.client.subscribe(RECEIVE_TOPIC, parameters.int("qos"))
    time.sleep(0.1)
    flood(client, parameters, seconds / 4)
    cpu, calls = cpu_seconds(), syscalls(parameters)
    count, began_ns, finished_ns = flood(client, parameters, seconds)
    if counts:
        return {"figures": {"syscalls_per_message": (syscalls(parameters) - calls) / count} if calls is not None else {}}
    return {"figures": {"messages_per_s": count / ((finished_ns - began_ns) * 1e-9),
                        "cpu_s_per_million": (cpu_seconds() - cpu) / count * 1e6}}


def enter(state, client, traffic):
    """An empty text, or what did not go as the state wants."""
    if state == "up":
        return ""
    if state == "zero_window":
        ask("become stall")
        payload = b"x" * 16 * 1024
        for _ in range(4_000):
            before = client.completed
            client.client.publish(TOPIC, payload, 0)
            if not wait_until(lambda: client.completed > before, 0.05):
                return ""
        return "the socket never filled up"
    ask("become silent" if state == "silent" else "become down")
    if not wait_until(lambda: not client.up, 3):
        return "it did not notice within 3 s that the connection was closed"
    if state == "silent":
        gone = time.perf_counter_ns()
        if not wait_until(lambda: int(ask("reconnect").split()[1]) > gone, 5):
            return "it did not try to connect again within 5 s"
    if state == "full":
        for _ in range(1_100):
            client.client.publish(TOPIC, traffic.payload, 1)
    return ""


def latency(parameters):
    state, manner, seconds = parameters["state"], parameters["manner"], parameters.float("seconds")
    client = Client(parameters.int("port"), 1_000, offline=True,
                    queue_messages=1_000 if state == "full" else 0).wait_connected()
    traffic = Traffic(client, 1, parameters.int("payload"), 500 if state == "full" else 1_000, BURST_MESSAGES)
    traffic.publish(100_000, 0.3)
    traffic.drain()
    note = enter(state, client, traffic)
    if note:
        return {"note": note}
    time.sleep(0.002)

    overhead = clock_ns()
    now = time.perf_counter_ns
    limit = seconds if manner == "burst" else 2 * seconds
    deadline_ns = now() + int(limit * 1e9)
    times, refused = [], 0

    def results(note=""):
        figures = {"calls": len(times), "refused": refused, "clock_ns": overhead}
        done = list(times)
        if done:
            figures |= percentiles(done)
        return {"figures": figures, "distributions": {"caller": distribution(done)}, "note": note}

    watchdog = threading.Timer(limit + 2, lambda: report(results(
        f"blocked: a call did not return within {limit + 2:.0f} s; cut off after {len(times)} calls")))
    watchdog.daemon = True
    watchdog.start()
    wanted = 0
    if manner == "burst":
        wanted = 0 if state == "up" else 4 * BURST_MESSAGES
        bursts = 0
        while now() < deadline_ns and (state == "up" or bursts < 4):
            burst, more_refused = traffic.burst(overhead, deadline_ns)
            times += burst
            refused += more_refused
            bursts += 1
            if state == "up":
                traffic.drain()
            time.sleep(0.002)
    else:
        wanted = int(seconds * 1e9 / PACE_NS)
        send, next_ns = client.client.publish, now()
        while len(times) < wanted and now() < deadline_ns:
            next_ns = max(next_ns + PACE_NS, now())
            if manner == "paced_asleep":
                time.sleep(max(0, next_ns - now()) * 1e-9)
            else:
                while now() < next_ns:
                    pass
            begin = now()
            rc = send(TOPIC, traffic.payload, 1).rc
            times.append(max(0, now() - begin - overhead))
            refused += rc not in (0, 4)
    watchdog.cancel()
    note = f"cut off after {len(times)} of {wanted} calls" if len(times) < wanted else ""
    if refused and state != "full":
        note += f"{', ' if note else ''}{refused} calls refused"
    return results(note)


def reconnect(parameters):
    client = Client(parameters.int("port"), 100, offline=True).wait_connected()
    payload, samples = b"x" * parameters.int("payload"), {"reconnect_ms": [], "outage_ms": []}
    random.seed(2026)
    end = time.monotonic() + parameters.float("seconds")
    for i in range(parameters.int("repeats")):
        if i > 0 and time.monotonic() > end:
            break
        ask("become down")
        if not wait_until(lambda: not client.up, 5):
            raise Failure("it did not notice within 5 s that the connection was closed")
        client.client.publish(TOPIC, payload, 1)
        time.sleep(random.uniform(0.005, 0.055))
        ask("become acknowledge")
        times = lambda: [int(word) for word in ask("reconnect").split()]
        if not wait_until(lambda: times()[2] != 0, 10):
            raise Failure(f"nothing was published within 10 s after return {i + 1} of the server")
        listening, accepted, acknowledged = times()
        samples["reconnect_ms"].append((acknowledged - accepted) * 1e-6)
        samples["outage_ms"].append((acknowledged - listening) * 1e-6)
        time.sleep(0.005)
    return {"samples": samples}


def memory_now():
    found = {}
    with open("/proc/self/smaps_rollup") as file:
        for line in file:
            if line.startswith(("Rss:", "Pss:")):
                name, value = line.split()[:2]
                found[name] = int(value) * 1024
    return found["Rss:"], found["Pss:"]


def clients(parameters):
    before, connections, count = memory_now(), ask_number("connections"), parameters.int("clients")
    deadline = time.monotonic() + parameters.float("seconds")
    kept = []
    for number in range(count):
        kept.append(Client(parameters.int("port"), 20, number=number))
        if not wait_until(lambda: ask_number("connections") - connections + 100 >= len(kept), deadline - time.monotonic()):
            break
    if not wait_until(lambda: ask_number("connections") - connections >= count, deadline - time.monotonic()):
        # select(), which it waits in, knows 1,024 descriptors, and a client has three.
        return {"note": f"only {ask_number('connections') - connections} of {count} clients were connected in time"}
    time.sleep(0.3)
    after = memory_now()
    return {"figures": {"rss_bytes_per_client": (after[0] - before[0]) / count,
                        "pss_bytes_per_client": (after[1] - before[1]) / count}}


def waiting(parameters):
    wanted, seconds = parameters.int("messages"), parameters.float("seconds")
    client = Client(parameters.int("port"), 1_000, offline=True).wait_connected()
    ask("become down")
    time.sleep(0.3)
    payload, send, note = b"x" * parameters.int("payload"), client.client.publish, ""
    before, begin, count = memory_now(), time.monotonic(), 0
    while count < wanted:
        if count % 64 == 0 and time.monotonic() - begin > seconds:
            note = f"cut off after {count} messages in {seconds:.0f} s"
            break
        if send(TOPIC, payload, 1).rc not in (0, 4):
            note = f"refuses more than {count} messages"  # it has no packet identifier left
            break
        count += 1
    elapsed, after = time.monotonic() - begin, memory_now()
    return {"figures": {"bytes_per_message": (after[1] - before[1]) / count, "messages": count,
                        "ns_per_message": elapsed / count * 1e9}, "note": note}


class Parameters(dict):
    def int(self, key):
        return int(self.get(key) or 0)

    def float(self, key):
        return float(self.get(key) or 0)


SCENARIOS = {
    "version": lambda parameters: {"note": paho.mqtt.__version__},
    "publish": publish,
    "publish_counts": lambda parameters: publish(parameters, counts=True),
    "receive": receive,
    "receive_counts": lambda parameters: receive(parameters, counts=True),
    "latency": latency,
    "reconnect": reconnect,
    "clients": clients,
    "waiting": waiting,
}

if __name__ == "__main__":
    try:
        import paho.mqtt
        import paho.mqtt.client as mqtt
    except ImportError:
        report({"failure": "not installed: apt-get install python3-paho-mqtt"})
    given = Parameters(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    try:
        report(SCENARIOS[given["scenario"]](given))
    except Failure as failure:
        report({"failure": str(failure)})
    except Exception as problem:
        report({"failure": f"{type(problem).__name__}: {problem}"})
