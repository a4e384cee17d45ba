#pragma once
// TlsConfig: whom to trust, and who we are, on a connection over TLS.
// Thread-safety: plain values.

#include <string>
#include <vector>

namespace fulmar {

// For mqtts:// and wss://. Files are read at each connection attempt, so renewed ones are used from the next one on.
// TLS 1.2 at least.
struct TlsConfig {
  std::string ca_file{};       // PEM; empty: the system's authorities [MQTT_CA_FILE]
  std::string cert_file{};     // PEM chain, ours first: mutual TLS [MQTT_CERT_FILE]
  std::string key_file{};      // PEM, its key [MQTT_KEY_FILE]
  std::string key_password{};  // where the key is encrypted
  bool insecure = false;       // the server's certificate and host name are not checked [MQTT_TLS_INSECURE]
  std::string server_name{};   // for SNI and the check of the host name; empty: the URL's host
  std::vector<std::string> alpn{};
  std::string psk_identity{};  // pre-shared key instead of certificates; TLS 1.2
  std::string psk{};           // its bytes
};

}  // namespace fulmar
