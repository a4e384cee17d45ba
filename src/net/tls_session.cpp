#include "net/tls_session.hpp"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <system_error>

#include <boost/asio/error.hpp>
#include <boost/asio/ip/address.hpp>

namespace fulmar::net {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

std::string quoted(const std::string& text) { return "\"" + text + "\""; }

bool is_address(const std::string& host) {
  error_code not_an_address;
  asio::ip::make_address(host, not_an_address);
  return !not_an_address;
}

std::string name_of(X509_NAME* name) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> out(BIO_new(BIO_s_mem()), BIO_free);
  if (!out || X509_NAME_print_ex(out.get(), name, 0, XN_FLAG_ONELINE & ~ASN1_STRFLGS_ESC_MSB) < 0) return "?";
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  return {text, static_cast<std::size_t>(size)};
}

std::string time_of(const ASN1_TIME* time) {
  std::tm parts{};
  char text[32];
  if (!ASN1_TIME_to_tm(time, &parts)) return "?";
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text;
}

// The names and addresses that a certificate is for, as far as a line has room.
std::string names_in(const X509* certificate) {
  const std::unique_ptr<GENERAL_NAMES, decltype(&GENERAL_NAMES_free)> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)),
      GENERAL_NAMES_free);
  constexpr int shown_max = 4;
  std::string text;
  int shown = 0;
  const int count = names ? sk_GENERAL_NAME_num(names.get()) : 0;
  for (int i = 0; i < count; ++i) {
    const auto* name = sk_GENERAL_NAME_value(names.get(), i);
    std::string one;
    if (name->type == GEN_DNS) {
      one.assign(reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName)),
                 static_cast<std::size_t>(ASN1_STRING_length(name->d.dNSName)));
    } else if (name->type == GEN_IPADD) {
      const auto* bytes = ASN1_STRING_get0_data(name->d.iPAddress);
      if (ASN1_STRING_length(name->d.iPAddress) == 4) {
        asio::ip::address_v4::bytes_type v4{};
        std::memcpy(v4.data(), bytes, v4.size());
        one = asio::ip::address_v4(v4).to_string();
      } else if (ASN1_STRING_length(name->d.iPAddress) == 16) {
        asio::ip::address_v6::bytes_type v6{};
        std::memcpy(v6.data(), bytes, v6.size());
        one = asio::ip::address_v6(v6).to_string();
      }
    }
    if (one.empty()) continue;
    if (shown++ == shown_max) return text + ", ...";
    text += (text.empty() ? "" : ", ") + quoted(one);
  }
  return text.empty() ? "no host name" : text;
}

std::string tls_reason(unsigned long code) {
  const char* reason = code ? ERR_reason_error_string(code) : nullptr;
  return reason ? reason : "unknown error";
}

}  // namespace

// OpenSSL's own socket BIO writes with write(2), and a peer that is gone would then be a SIGPIPE for the program.
struct TlsSession::Hooks {
  static TlsSession& of(BIO* bio) { return *static_cast<TlsSession*>(BIO_get_data(bio)); }
  static TlsSession& of(const SSL* ssl) { return *static_cast<TlsSession*>(SSL_get_app_data(ssl)); }

  static int read(BIO* bio, char* data, int size) {
    auto& session = of(bio);
    BIO_clear_retry_flags(bio);
    if (session.drained_) {  // it has said so a moment ago; asking again would be a system call for nothing
      session.drained_ = false;
      BIO_set_retry_read(bio);
      return -1;
    }
    const auto got = ::recv(session.socket_, data, static_cast<std::size_t>(size), MSG_DONTWAIT);
    if (got < 0) {
      session.socket_error_ = errno;
      if (errno == EAGAIN || errno == EINTR) BIO_set_retry_read(bio);
      return -1;
    }
    if (got == 0) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
    session.drained_ = got > 0 && got < size;
    return static_cast<int>(got);
  }

  static int write(BIO* bio, const char* data, int size) {
    auto& session = of(bio);
    BIO_clear_retry_flags(bio);
    const auto sent =
        ::send(session.socket_, data, static_cast<std::size_t>(size), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
      session.socket_error_ = errno;
      if (errno == EAGAIN || errno == EINTR) BIO_set_retry_write(bio);
      return -1;
    }
    return static_cast<int>(sent);
  }

  static long control(BIO* bio, int command, long, void*) {
    if (command == BIO_CTRL_EOF) return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
  }

  static const BIO_METHOD* method() {
    static const std::unique_ptr<BIO_METHOD, decltype(&BIO_meth_free)> made = [] {
      BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket");
      if (method) {
        BIO_meth_set_read(method, read);
        BIO_meth_set_write(method, write);
        BIO_meth_set_ctrl(method, control);
      }
      return std::unique_ptr<BIO_METHOD, decltype(&BIO_meth_free)>(method, BIO_meth_free);
    }();
    return made.get();
  }

  // Of all that is wrong with a chain the first finding is told: later ones follow from it.
  static int verify(int good, X509_STORE_CTX* store) {
    const auto* ssl =
        static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
    auto& session = of(ssl);
    if (!good && session.bad_certificate_.empty()) {
      session.bad_certificate_ =
          explain(session, X509_STORE_CTX_get_error(store), X509_STORE_CTX_get_error_depth(store),
                  X509_STORE_CTX_get_current_cert(store));
    }
    return good;
  }

  static std::string explain(const TlsSession& session, int error, int depth, X509* certificate) {
    const std::string whose =
        depth == 0 ? "the server's certificate"
                   : "the certificate of the authority " +
                         quoted(certificate ? name_of(X509_get_subject_name(certificate)) : "?");
    const std::string trusted = session.config_.ca_file.empty()
                                    ? "name its authority in tls.ca_file (MQTT_CA_FILE)"
                                    : "tls.ca_file (MQTT_CA_FILE) " + quoted(session.config_.ca_file) +
                                          " does not hold its authority";
    switch (error) {
      case X509_V_ERR_HOSTNAME_MISMATCH:
      case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return "the server's certificate is for " + (certificate ? names_in(certificate) : "another host") +
               ", not for " + quoted(session.server_) + "; correct the URL's host or set tls.server_name";
      case X509_V_ERR_CERT_HAS_EXPIRED:
        return whose + " has expired on " + (certificate ? time_of(X509_get0_notAfter(certificate)) : "?") +
               "; renew it, or correct this machine's clock";
      case X509_V_ERR_CERT_NOT_YET_VALID:
        return whose + " is not yet valid, but from " +
               (certificate ? time_of(X509_get0_notBefore(certificate)) : "?") +
               " on; correct this machine's clock, or the certificate";
      case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        return "the server's certificate is self-signed and not trusted; " + trusted;
      case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
      case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
      case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
      case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        return "the server's certificate is issued by an unknown authority, " +
               quoted(certificate ? name_of(X509_get_issuer_name(certificate)) : "?") + "; " + trusted;
      case X509_V_ERR_INVALID_PURPOSE:
        return whose + " is not meant for a server (its extended key usage forbids it)";
      case X509_V_ERR_CERT_REVOKED: return whose + " is revoked";
      default: return whose + " is not accepted: " + X509_verify_cert_error_string(error);
    }
  }

  static unsigned psk(SSL* ssl, const char* /*hint*/, char* identity, unsigned identity_size,
                      unsigned char* key, unsigned key_size) {
    const auto& config = of(ssl).config_;
    if (config.psk_identity.size() >= identity_size || config.psk.size() > key_size) return 0;
    std::memcpy(identity, config.psk_identity.c_str(), config.psk_identity.size() + 1);
    std::memcpy(key, config.psk.data(), config.psk.size());
    return static_cast<unsigned>(config.psk.size());
  }
};

void TlsSession::Free::operator()(ssl_st* ssl) const { SSL_free(ssl); }

TlsSession::TlsSession(TlsContext context, int socket, const std::string& host, const TlsConfig& config)
    : context_(std::move(context)),
      socket_(socket),
      config_(config),
      server_(config.server_name.empty() ? host : config.server_name),
      ssl_(SSL_new(context_.get())) {
  BIO* bio = Hooks::method() ? BIO_new(Hooks::method()) : nullptr;
  if (!ssl_ || !bio) {
    BIO_free(bio);
    ssl_.reset();
    why_ = "TLS: out of memory";
    return;
  }
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_.get(), bio, bio);
  SSL_set_app_data(ssl_.get(), this);
  SSL_set_connect_state(ssl_.get());
  if (!config_.psk.empty()) {
    SSL_set_psk_client_callback(ssl_.get(), Hooks::psk);
  } else if (!config_.insecure) {
    SSL_set_verify(ssl_.get(), SSL_VERIFY_PEER, Hooks::verify);
  }
  if (!ask_for(server_)) {
    ssl_.reset();
    why_ = "TLS cannot ask for the server " + quoted(server_) + ": " + tls_reason(ERR_peek_last_error());
  }
}

TlsSession::~TlsSession() = default;

// An address is no name to ask for (RFC 6066, section 3), and is looked for among the certificate's addresses only.
bool TlsSession::ask_for(const std::string& server_name) {
  if (is_address(server_name)) {
    return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_.get()), server_name.c_str()) == 1;
  }
  SSL_set_hostflags(ssl_.get(), X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  return SSL_set1_host(ssl_.get(), server_name.c_str()) == 1 &&
         SSL_set_tlsext_host_name(ssl_.get(), server_name.c_str()) == 1;
}

void TlsSession::handshake(error_code& error) {
  if (!ssl_) {
    error = asio::error::invalid_argument;
    return;
  }
  ERR_clear_error();
  if (settled(SSL_do_handshake(ssl_.get()), error)) open_ = true;
}

std::size_t TlsSession::read(asio::mutable_buffer buffer, error_code& error) {
  error = ended_;
  std::size_t total = 0;
  while (!error && total < buffer.size()) {  // a record at a time, and there may be several
    std::size_t got = 0;
    ERR_clear_error();
    auto* to = static_cast<char*>(buffer.data()) + total;
    if (settled(SSL_read_ex(ssl_.get(), to, buffer.size() - total, &got), error)) total += got;
  }
  if (error && error != asio::error::would_block) ended_ = error;
  if (total > 0) error = {};
  return total;
}

std::size_t TlsSession::write(asio::const_buffer buffer, error_code& error) {
  error = {};
  std::size_t total = 0;
  while (!error && total < buffer.size()) {
    std::size_t sent = 0;
    ERR_clear_error();
    const auto* from = static_cast<const char*>(buffer.data()) + total;
    if (settled(SSL_write_ex(ssl_.get(), from, buffer.size() - total, &sent), error)) total += sent;
  }
  if (total > 0 && error == asio::error::would_block) error = {};
  return total;
}

void TlsSession::send_close_notify() {
  if (!open_ || !why_.empty()) return;
  ERR_clear_error();
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

bool TlsSession::settled(int result, error_code& error) {
  error = {};
  if (result == 1) return true;
  const int kind = SSL_get_error(ssl_.get(), result);
  if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
    wait_ = kind == SSL_ERROR_WANT_READ ? Wait::readable : Wait::writable;
    error = asio::error::would_block;
    return false;
  }
  const unsigned long code = ERR_peek_error();
  const bool cut =
      ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
  if (kind == SSL_ERROR_ZERO_RETURN && open_) {
    error = asio::error::eof;
  } else if (kind == SSL_ERROR_SYSCALL && socket_error_ != 0 && open_) {
    error = error_code(socket_error_, boost::system::system_category());
  } else if (!open_) {
    error = asio::error::connection_aborted;
    explain_handshake(code, cut || kind == SSL_ERROR_ZERO_RETURN ? 0 : socket_error_);
  } else {
    error = asio::error::connection_aborted;
    if (cut) {
      why_ = "the connection was cut: the server closed it without the end that TLS demands (close_notify)";
    } else if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) > SSL_AD_REASON_OFFSET) {
      why_ = explain_alert(ERR_GET_REASON(code));
    } else {
      why_ = "TLS failed: " + tls_reason(code);
    }
  }
  ERR_clear_error();
  return false;
}

void TlsSession::explain_handshake(unsigned long code, int system_error) {
  const int reason = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
  if (!bad_certificate_.empty()) {
    why_ = bad_certificate_;
  } else if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST ||
             reason == SSL_R_HTTPS_PROXY_REQUEST || reason == SSL_R_BAD_RECORD_TYPE) {
    why_ =
        "the server does not speak TLS on this port; use the port for TLS, or mqtt:// (ws://) if none is "
        "wanted";
  } else if (reason == SSL_R_UNSUPPORTED_PROTOCOL || reason == SSL_R_TLSV1_ALERT_PROTOCOL_VERSION ||
             reason == SSL_R_UNKNOWN_PROTOCOL) {
    why_ = config_.psk.empty() ? "the server does not speak TLS 1.2 or newer"
                               : "the server does not speak TLS 1.2, which tls.psk needs";
  } else if (reason > SSL_AD_REASON_OFFSET) {
    why_ = explain_alert(reason);
  } else if (code == 0 || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
    why_ = "the server broke off the TLS handshake (" +
           (system_error ? std::generic_category().message(system_error) : "it closed the connection") +
           "); does it speak TLS on this port?";
  } else {
    why_ = "the TLS handshake failed: " + tls_reason(code);
  }
}

// What the server said when it refused. With TLS 1.3 it comes after our side of the handshake is over.
std::string TlsSession::explain_alert(int reason) const {
  const bool offered = !config_.cert_file.empty();
  const std::string ours = "tls.cert_file (MQTT_CERT_FILE) " + quoted(config_.cert_file);
  const std::string demanded =
      "the server demands a client certificate; set tls.cert_file (MQTT_CERT_FILE) and tls.key_file "
      "(MQTT_KEY_FILE)";
  const std::string said = " (" + tls_reason(ERR_PACK(ERR_LIB_SSL, 0, reason)) + ")";
  if (!config_.psk.empty()) {
    return "the server refused the pre-shared key of identity " + quoted(config_.psk_identity) + said +
           "; check tls.psk_identity and tls.psk";
  }
  switch (reason) {
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED: return demanded;
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
      // TLS 1.2 has no word of its own for it.
      if (!offered && SSL_get_client_CA_list(ssl_.get())) return demanded;
      return "the server refused the TLS handshake" + said + "; it may demand " +
             (offered ? "another client certificate" : "a client certificate") +
             ", or have no cipher in common with us";
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
    case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
      if (offered) return "the server refused our certificate" + said + ", " + ours;
      return demanded;
    case SSL_R_TLSV1_UNRECOGNIZED_NAME:
      return "the server does not know the name " + quoted(server_) +
             "; correct the URL's host or set tls.server_name";
    case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
      return "the server speaks none of the protocols in tls.alpn";
    default: return "the server ended TLS" + said;
  }
}

}  // namespace fulmar::net
