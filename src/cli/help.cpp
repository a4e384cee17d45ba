#include "cli/help.hpp"

#ifndef FULMAR_VERSION
#error "FULMAR_VERSION comes from src/cli/CMakeLists.txt"
#endif

namespace fulmar::cli {
namespace {

std::string option_lines(Command command) {
  constexpr std::size_t column = 32;
  std::string lines;
  for (const auto& row : option_table()) {
    if (!row.belongs_to(command)) continue;
    std::string line = row.short_name.empty() ? "      " : "  " + std::string(row.short_name);
    if (!row.long_name.empty())
      line += std::string(row.short_name.empty() ? "" : ", ") + std::string(row.long_name);
    if (!row.value.empty()) line += " <" + std::string(row.value) + ">";
    if (line.size() < column) line.append(column - line.size(), ' ');
    lines += line + " " + std::string(row.help) + "\n";
  }
  return lines;
}

constexpr std::string_view pub_head =
    R"(fulmar pub: publish a message and exit when the broker has it.

Usage: fulmar pub [-h host] [-p port] -t topic {-m text | -f path | -l | -s | -n} [options]
       fulmar pub -L mqtt://[user[:password]@]host[:port]/topic {-m text | -f path | -l | -s | -n} [options]

)";

constexpr std::string_view pub_examples = R"(
Examples:
  fulmar pub -t greeting -m hello
  fulmar pub -h broker.example -u me -P secret -t lamp/set -m on -q 1 -r
  fulmar pub -t photo -f photo.jpg -q 2
  tail -f app.log | fulmar pub -t logs/app -l
)";

constexpr std::string_view sub_head =
    R"(fulmar sub: print the messages of topics.

Usage: fulmar sub [-h host] [-p port] -t filter [-t filter ...] [options]
       fulmar sub -L mqtt://[user[:password]@]host[:port]/filter [-t filter ...] [options]

)";

constexpr std::string_view sub_examples = R"(
Examples:
  fulmar sub -t 'sensors/+/temperature' -v
  fulmar sub -t lamp/state -C 1 -W 5          one message, or exit code 27 after 5 s
  fulmar sub -t '#' -F '%I %t %p' -q 1
  fulmar sub -i queue -c -q 1 -t jobs -C 1    the next job; the broker keeps the others
)";

constexpr std::string_view telemetry_head =
    R"(fulmar telemetry: send records to a broker in batches, and lose none on the way.

Usage: fulmar telemetry [-h host] [-p port] [--source host|-|file] [options]
       fulmar telemetry -L mqtt://[user[:password]@]host[:port][/topic] [options]

A record is a line of JSON, {"ts":1795250330392,"values":{"temp":21.5}} or {"ts":1795250330392,"temp":21.5}, or a
line of CSV under a header that names the columns. ts is the time of the sample in milliseconds; now, without one.
Records wait while the broker is away, and a file or a pipe waits with them. A line that is wrong is told and skipped.

)";

constexpr std::string_view telemetry_examples = R"(
Examples:
  fulmar telemetry --source host -t rig/7              this machine's measurements, 10 a second, until Ctrl-C
  fulmar telemetry --source data.csv --rate 100        replay a file, 100 records a second
  fulmar telemetry -q 1 -t rig/7 < data.jsonl          as fast as the broker takes them
  fulmar telemetry --source host --spool /var/lib/rig  the same, and what the broker misses waits on disk
  mkfifo in; fulmar telemetry --source in --fields a,b the values a and b of what a program writes into a FIFO

On stdout a summary in the end:
  10000 records: 9998 acknowledged, 2 lost (queue full 2); 100 batches; 3 bad lines skipped; 1.2 s
)";

constexpr std::string_view common_tail = R"(
Environment:
  MQTT_URL   the broker when none of -h, -p and -L is given: mqtt://[user[:password]@]host[:port]

Exit codes: 0 success, 1 failure; when the broker refuses the connection the code of its CONNACK (3.1.1: 1 to
5, 5.0: 128 and above); )";

std::string assemble(std::string_view head, Command command, std::string_view examples,
                     std::string_view codes) {
  std::string text{head};
  text.append(option_lines(command)).append(examples).append(common_tail).append(codes);
  return text;
}

}  // namespace

std::string help() {
  return R"(fulmar: MQTT on the command line.

Usage: fulmar <command> [options]

Commands:
  pub        publish messages                 fulmar pub -t greeting -m hello
  sub        print the messages of topics     fulmar sub -t 'sensors/#' -v
  telemetry  send records in batches          fulmar telemetry --source data.csv
  spool      look at what waits on disk       fulmar spool inspect /var/lib/app/spool
  queue      hand work to other programs    fulmar queue add '{"image":17}'
  help       this text; of a command: fulmar help pub

Options and exit codes of pub and sub are those of mosquitto_pub and mosquitto_sub.

  --help     this text
  --version  the version
)";
}

std::string help(Command command) {
  switch (command) {
    case Command::pub:
      return assemble(pub_head, command, pub_examples,
                      "7 when the connection is lost before the message is acknowledged.\n");
    case Command::sub: return assemble(sub_head, command, sub_examples, "27 when the time of -W is over.\n");
    case Command::telemetry:
      return assemble(
          telemetry_head, command, telemetry_examples,
          "7 when records\nwere lost; 27 when the time of -W is over; 65 when lines were no records "
          "and all others are delivered.\n");
  }
  return {};
}

std::string version() { return "fulmar " FULMAR_VERSION "\n"; }

}  // namespace fulmar::cli
