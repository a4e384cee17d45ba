#include <array>

#include "cli/options.hpp"

namespace fulmar::cli {
namespace {

// A row's last field: which commands have it; without one, all.
constexpr unsigned pub = OptionRow::bit(Command::pub);
constexpr unsigned sub = OptionRow::bit(Command::sub);
constexpr unsigned telemetry = OptionRow::bit(Command::telemetry);

constexpr auto rows = std::to_array<OptionRow>({
    {"-h", "--host", "host", "broker's name or address (default: localhost)"},
    {"-p", "--port", "port", "broker's port (default: 1883)"},
    {"-L", "--url", "url", "mqtt://[user[:password]@]host[:port]/topic: broker, user and topic at once"},
    {"-t", "--topic", "topic", "topic; sub: a filter, may be repeated", pub | sub},
    {"-t", "--topic", "topic", "topic of the batches (default: v1/devices/me/telemetry)", telemetry},
    {"-q", "--qos", "qos", "quality of service: 0, 1 or 2 (default: 0)", pub | sub},
    {"-q", "--qos", "qos", "quality of service: 0 or 1 (default: 1)", telemetry},

    {"-m", "--message", "text", "send this text", pub},
    {"-f", "--file", "path", "send the content of this file", pub},
    {"-l", "--stdin-line", "", "send each line of stdin as a message of its own", pub},
    {"-s", "--stdin-file", "", "send the whole stdin as one message", pub},
    {"-n", "--null-message", "", "send an empty message", pub},
    {"-r", "--retain", "", "the broker keeps the message for later subscribers", pub},
    {"", "--repeat", "n", "with -m, -f, -s or -n: send it n times", pub},
    {"", "--repeat-delay", "seconds", "wait this long between repetitions (default: 0)", pub},

    {"-C", "", "count", "exit after this many messages", sub},
    {"-W", "", "seconds", "exit with code 27 after this many seconds", sub},
    {"-v", "--verbose", "", "print \"topic payload\" instead of the payload", sub},
    {"-N", "", "", "no end of line after a message", sub},
    {"-F", "", "format", "print each message in this format; see docs/cli.md", sub},
    {"", "--pretty", "", "with %j and %J: JSON over several lines", sub},
    {"-R", "", "", "skip messages that the broker had retained", sub},
    {"", "--retained-only", "", "only those; exit at the first that is not", sub},
    {"", "--retain-as-published", "", "5.0: keep the publisher's retain flag", sub},
    {"", "--remove-retained", "", "remove the retained messages that arrive from the broker", sub},
    {"-T", "--filter-out", "filter", "skip topics that match; may be repeated", sub},
    {"-E", "", "", "exit when the broker has acknowledged the subscriptions", sub},

    {"", "--source", "source", "host (this machine), - (stdin) or a file or FIFO (default: stdin, or host)",
     telemetry},
    {"", "--format", "format",
     "of stdin and files: auto (default), json (an object a line) or csv (with a header)", telemetry},
    {"", "--rate", "n", "records per second (default: host: 10; else as fast as they are taken)", telemetry},
    {"", "--batch-size", "n", "records of a batch, 1 to 10000 (default: 100)", telemetry},
    {"", "--batch-bytes", "n", "payload of a batch at most, 1000 to 16777216 (default: 60000)", telemetry},
    {"", "--batch-interval", "seconds", "a batch waits that long for more records (default: 1)", telemetry},
    {"", "--batch-wrapper", "", "send {\"items\":[...],\"count\":n,\"run\":...,\"batch\":n} instead of [...]",
     telemetry},
    {"", "--queue", "n", "records that wait for a batch at most (default: 16384)", telemetry},
    {"", "--fields", "a,b", "send these values only", telemetry},
    {"", "--attributes", "name=value", "publish this attribute once; may be repeated", telemetry},
    {"", "--attributes-topic", "topic", "where to (default: v1/devices/me/attributes)", telemetry},
    {"", "--spool", "folder", "what the broker does not have waits there, also for the next run", telemetry},
    {"", "--spool-bytes", "n", "its bound, 1 MiB to 1 TiB in bytes (default: 1073741824)", telemetry},
    {"", "--durability", "which",
     "spill (default): there while the broker is away; write_ahead: before it is sent", telemetry},
    {"", "--duration", "seconds", "stop after that time", telemetry},
    {"", "--count", "n", "stop after that many records", telemetry},
    {"-W", "", "seconds",
     "after the end of the input: give up with code 27 what is not delivered after this time", telemetry},

    {"-i", "--id", "id", "client identifier (default: a random one)"},
    {"-I", "--id-prefix", "prefix", "client identifier: the prefix and the process id"},
    {"-u", "--username", "name", "user name"},
    {"-P", "--pw", "password", "password; the environment variable MQTT_URL hides it from `ps`"},
    {"-V", "--protocol-version", "version", "mqttv311 (default) or mqttv5; also 311, 5"},
    {"-c", "--disable-clean-session", "", "keep the session at the broker (needs -i)"},
    {"-x", "", "seconds", "5.0: how long the broker keeps the session; -1 = for ever"},
    {"-k", "--keepalive", "seconds", "ping the broker when idle for this long, 5 to 3600 (default: 60)"},
    {"-M", "", "n", "unacknowledged messages at a time (default: 1024)"},
    {"", "--will-topic", "topic", "the broker publishes there when this client vanishes"},
    {"", "--will-payload", "text", "what it publishes (default: an empty message)"},
    {"", "--will-qos", "qos", "with which quality of service (default: 0)"},
    {"", "--will-retain", "", "and as a retained message"},
    {"", "--nodelay", "", "accepted; it is always so"},
    {"-d", "--debug", "", "tell on stderr what happens"},
    {"", "--quiet", "", "no messages about failures while running"},
    {"", "--help", "", "this text"},
});

}  // namespace

std::string_view name_of(Command command) {
  switch (command) {
    case Command::pub: return "pub";
    case Command::sub: return "sub";
    case Command::telemetry: return "telemetry";
  }
  return "";
}

std::span<const OptionRow> option_table() { return rows; }

}  // namespace fulmar::cli
