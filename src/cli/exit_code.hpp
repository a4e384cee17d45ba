#pragma once
// The exit codes of `fulmar pub` and `fulmar sub`, which are those of mosquitto_pub and mosquitto_sub, and of
// `fulmar telemetry` and `fulmar spool`.
// A refusal by the server exits with the code of its CONNACK: 1 to 5 in MQTT 3.1.1, 128 and above in 5.0.

namespace fulmar::cli {

enum ExitCode : int {
  exit_success = 0,
  exit_failure = 1,          // bad option, unreadable input, no connection
  exit_connection_lost = 7,  // pub: the connection went before everything was delivered
  exit_records_lost = 7,     // telemetry: not every record was delivered
  exit_timed_out = 27,       // sub -W, telemetry -W
  exit_bad_lines = 65,       // telemetry: lines of the input were no records; all others are delivered
  exit_spool_damaged = 65,   // spool verify and export: damage was found
};

}  // namespace fulmar::cli
