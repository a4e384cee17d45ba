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
    if (!(command == Command::pub ? row.pub : row.sub)) continue;
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

constexpr std::string_view common_tail = R"(
Environment:
  MQTT_URL   the broker when none of -h, -p and -L is given: mqtt://[user[:password]@]host[:port]

Exit codes: 0 success, 1 failure; when the broker refuses the connection the code of its CONNACK (3.1.1: 1 to
5, 5.0: 128 and above); )";

}  // namespace

std::string help() {
  return R"(fulmar: MQTT on the command line.

Usage: fulmar <command> [options]

Commands:
  pub        publish messages                 fulmar pub -t greeting -m hello
  sub        print the messages of topics     fulmar sub -t 'sensors/#' -v
  help       this text; of a command: fulmar help pub

Options and exit codes are those of mosquitto_pub and mosquitto_sub.

  --help     this text
  --version  the version
)";
}

std::string help(Command command) {
  const bool pub = command == Command::pub;
  std::string text{pub ? pub_head : sub_head};
  text += option_lines(command);
  text += pub ? pub_examples : sub_examples;
  text += common_tail;
  text += pub ? "7 when the connection is lost before the message is acknowledged.\n"
              : "27 when the time of -W is over.\n";
  return text;
}

std::string version() { return "fulmar " FULMAR_VERSION "\n"; }

}  // namespace fulmar::cli
