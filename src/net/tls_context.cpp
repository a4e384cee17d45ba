#include "net/tls_context.hpp"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509err.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <iterator>
#include <list>
#include <mutex>
#include <optional>
#include <system_error>
#include <tuple>

namespace fulmar::net {
namespace {

constexpr std::size_t contexts_kept = 16;  // clients of one program rarely differ in more

struct FileState {
  std::string path;
  dev_t device = 0;
  ino_t inode = 0;
  off_t size = -1;  // -1: not there
  timespec changed{};

  explicit FileState(std::string of) : path(std::move(of)) {
    struct stat found{};
    if (path.empty() || ::stat(path.c_str(), &found) != 0) return;
    device = found.st_dev;
    inode = found.st_ino;
    size = found.st_size;
    changed =
        found.st_ctim;  // also moved by a rename over it and by a write that keeps the time of modification
  }
  bool operator==(const FileState& other) const {
    return std::tie(path, device, inode, size, changed.tv_sec, changed.tv_nsec) ==
           std::tie(other.path, other.device, other.inode, other.size, other.changed.tv_sec,
                    other.changed.tv_nsec);
  }
};

std::string system_place(const char* variable, const char* fallback) {
  const char* set = std::getenv(variable);
  return set ? set : fallback;
}

// Everything that a context is made of. The server's name is not: it belongs to the connection.
struct Ingredients {
  std::vector<FileState> files;
  std::string key_password;
  bool insecure;
  bool psk;
  std::vector<std::string> alpn;

  explicit Ingredients(const TlsConfig& config)
      : key_password(config.key_password),
        insecure(config.insecure),
        psk(!config.psk.empty()),
        alpn(config.alpn) {
    for (const auto* file : {&config.ca_file, &config.cert_file, &config.key_file}) files.emplace_back(*file);
    if (!config.ca_file.empty() || insecure || psk) return;
    files.emplace_back(system_place(X509_get_default_cert_file_env(), X509_get_default_cert_file()));
    files.emplace_back(system_place(X509_get_default_cert_dir_env(), X509_get_default_cert_dir()));
  }
  bool operator==(const Ingredients&) const = default;
  // The same files in another state.
  bool older_than(const Ingredients& other) const {
    return files != other.files &&
           std::ranges::equal(files, other.files, {}, &FileState::path, &FileState::path);
  }
};

std::string last_tls_error() {
  const unsigned long code = ERR_peek_last_error();
  const char* reason = code ? ERR_reason_error_string(code) : nullptr;
  return reason ? reason : "unknown error";
}

std::unexpected<Error> bad_file(std::string_view field, std::string_view variable, const std::string& path,
                                const std::string& why) {
  return fail(Errc::invalid_config,
              std::string(field) + " (" + std::string(variable) + ") \"" + path + "\": " + why);
}

// OpenSSL's own words for a file that is not there are not a user's.
std::optional<std::string> unreadable(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  const int code = fd < 0 ? errno : 0;
  struct stat found{};
  const bool directory = fd >= 0 && ::fstat(fd, &found) == 0 && S_ISDIR(found.st_mode);
  if (fd >= 0) ::close(fd);
  if (code) return "cannot be read: " + std::generic_category().message(code);
  if (directory) return "is a directory";
  return {};
}

struct Password {
  const std::string& text;
  bool asked = false;

  // Without a callback OpenSSL asks at the terminal.
  static int answer(char* buffer, int size, int /*writing*/, void* self) {
    auto& password = *static_cast<Password*>(self);
    password.asked = true;
    if (password.text.empty() || password.text.size() > static_cast<std::size_t>(size)) return -1;
    password.text.copy(buffer, password.text.size());
    return static_cast<int>(password.text.size());
  }
};

Result<void> load_authorities(SSL_CTX* context, const TlsConfig& config) {
  if (config.ca_file.empty()) {
    if (SSL_CTX_set_default_verify_paths(context) != 1) {
      return fail(Errc::invalid_config, "the system's authorities cannot be loaded: " + last_tls_error() +
                                            "; name a file in tls.ca_file (MQTT_CA_FILE)");
    }
    return {};
  }
  if (const auto why = unreadable(config.ca_file))
    return bad_file("tls.ca_file", "MQTT_CA_FILE", config.ca_file, *why);
  if (SSL_CTX_load_verify_file(context, config.ca_file.c_str()) != 1) {
    return bad_file("tls.ca_file", "MQTT_CA_FILE", config.ca_file,
                    "holds no certificates in PEM format (" + last_tls_error() + ")");
  }
  return {};
}

Result<void> load_own_certificate(SSL_CTX* context, const TlsConfig& config) {
  if (config.cert_file.empty() && config.key_file.empty()) return {};
  if (config.cert_file.empty()) {
    return fail(
        Errc::invalid_config,
        "tls.key_file (MQTT_KEY_FILE) is set without tls.cert_file (MQTT_CERT_FILE), its certificate");
  }
  if (const auto why = unreadable(config.cert_file))
    return bad_file("tls.cert_file", "MQTT_CERT_FILE", config.cert_file, *why);
  if (SSL_CTX_use_certificate_chain_file(context, config.cert_file.c_str()) != 1) {
    return bad_file("tls.cert_file", "MQTT_CERT_FILE", config.cert_file,
                    "holds no usable certificate in PEM format (" + last_tls_error() + ")");
  }
  // Some keep both in one file.
  const auto& key_file = config.key_file.empty() ? config.cert_file : config.key_file;
  const auto bad_key = [&](const std::string& why) {
    return bad_file("tls.key_file", "MQTT_KEY_FILE", key_file, why);
  };
  if (const auto why = unreadable(key_file)) return bad_key(*why);
  Password password{config.key_password};
  SSL_CTX_set_default_passwd_cb(context, Password::answer);
  SSL_CTX_set_default_passwd_cb_userdata(context, &password);
  const bool loaded = SSL_CTX_use_PrivateKey_file(context, key_file.c_str(), SSL_FILETYPE_PEM) == 1;
  SSL_CTX_set_default_passwd_cb(context, nullptr);
  SSL_CTX_set_default_passwd_cb_userdata(context, nullptr);
  if (!loaded) {
    const unsigned long code = ERR_peek_last_error();
    if (ERR_GET_LIB(code) == ERR_LIB_X509 && ERR_GET_REASON(code) == X509_R_KEY_VALUES_MISMATCH) {
      return bad_key("is not the key of the certificate in \"" + config.cert_file + "\"");
    }
    if (password.asked && config.key_password.empty()) return bad_key("is encrypted; set tls.key_password");
    if (password.asked) return bad_key("cannot be decrypted; is tls.key_password right?");
    return bad_key("holds no usable private key in PEM format (" + last_tls_error() + ")");
  }
  if (SSL_CTX_check_private_key(context) != 1) {
    return bad_key("is not the key of the certificate in \"" + config.cert_file + "\"");
  }
  return {};
}

Result<void> set_alpn(SSL_CTX* context, const std::vector<std::string>& protocols) {
  if (protocols.empty()) return {};
  std::string wire;
  for (const auto& name : protocols) {
    if (name.empty() || name.size() > 255) {
      return fail(Errc::invalid_config, "tls.alpn: \"" + name + "\" has " + std::to_string(name.size()) +
                                            " bytes; expected 1 to 255");
    }
    wire += static_cast<char>(name.size());
    wire += name;
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(wire.data());
  if (SSL_CTX_set_alpn_protos(context, bytes, static_cast<unsigned>(wire.size())) != 0)
    return fail(Errc::invalid_config, "tls.alpn is too long");
  return {};
}

Result<TlsContext> make_context(const TlsConfig& config) {
  ERR_clear_error();
  TlsContext context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  if (!context) return fail(Errc::invalid_config, "TLS cannot be used: " + last_tls_error());
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  // Part of a buffer written is progress; what is tried again may have moved; an idle connection holds no buffers.
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead(context.get(), 1);  // header and body of a record by one system call
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  if (auto set = set_alpn(context.get(), config.alpn); !set) return std::unexpected(set.error());
  if (!config.psk.empty()) {
    // OpenSSL gives external keys of TLS 1.3 another interface, and brokers speak this one.
    SSL_CTX_set_max_proto_version(context.get(), TLS1_2_VERSION);
    if (SSL_CTX_set_cipher_list(context.get(), "kECDHEPSK:kDHEPSK:kPSK:!eNULL") != 1)
      return fail(Errc::invalid_config, "this OpenSSL has no ciphers for tls.psk: " + last_tls_error());
    return context;
  }
  SSL_CTX_set_verify(context.get(), config.insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, nullptr);
  if (!config.insecure) {
    if (auto loaded = load_authorities(context.get(), config); !loaded)
      return std::unexpected(loaded.error());
  }
  if (auto loaded = load_own_certificate(context.get(), config); !loaded)
    return std::unexpected(loaded.error());
  return context;
}

// The contexts of the process, the last used first.
class Cache {
 public:
  // Never destroyed: connections may end later than everything else.
  static Cache& of_process() {
    static auto* cache = new Cache;
    return *cache;
  }

  TlsContext find(const Ingredients& wanted) {
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find(kept_, wanted, &Kept::ingredients);
    if (found == kept_.end()) return nullptr;
    kept_.splice(kept_.begin(), kept_, found);
    return kept_.front().context;
  }

  void keep(Ingredients ingredients, TlsContext context) {
    std::list<Kept> unwanted;  // freed outside of the lock
    const std::lock_guard lock(mutex_);
    for (auto one = kept_.begin(); one != kept_.end();) {
      const auto here = one++;  // a renewed file's former context is of no more use
      if (here->ingredients.older_than(ingredients)) unwanted.splice(unwanted.end(), kept_, here);
    }
    kept_.push_front({std::move(ingredients), std::move(context)});
    if (kept_.size() > contexts_kept) unwanted.splice(unwanted.end(), kept_, std::prev(kept_.end()));
  }

  std::timed_mutex reading;  // held while files are read; never by an I/O thread

  // At exit OpenSSL frees what it has, and a thread that nobody waits for may be reading files with it. From then on none
  // does: the mutex is taken for good.
  void end_reading_at_exit() {
    static const bool registered = [] {
      OPENSSL_init_ssl(0, nullptr);  // its own handler comes first, and so runs last
      return std::atexit([] { std::ignore = of_process().reading.try_lock_for(std::chrono::seconds(1)); }) ==
             0;
    }();
    std::ignore = registered;
  }

 private:
  struct Kept {
    Ingredients ingredients;
    TlsContext context;
  };
  std::mutex mutex_;
  std::list<Kept> kept_;
};

}  // namespace

TlsContext kept_tls_context(const TlsConfig& config) { return Cache::of_process().find(Ingredients(config)); }

Result<TlsContext> tls_context(const TlsConfig& config) {
  auto& cache = Cache::of_process();
  cache.end_reading_at_exit();
  const std::lock_guard reading(cache.reading);
  // Looked at before the files are read: if one changes meanwhile, the next call sees another state and reads again.
  Ingredients wanted(config);
  if (auto kept = cache.find(wanted)) return kept;
  auto made = make_context(config);
  if (made) cache.keep(std::move(wanted), *made);
  return made;
}

}  // namespace fulmar::net
