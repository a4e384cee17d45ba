#pragma once
// TlsContext: what a TLS configuration comes to once its files are read: trusted authorities, our certificate and key,
// versions, ciphers. OpenSSL's SSL_CTX, which connections share.
//
// Reading the system's authorities takes milliseconds and megabytes, so each thread keeps the contexts it used last and
// uses them again as long as the files are what they were (device, inode, size, time of change): a renewed file counts
// from the next call on.
//
// Thread-safety: any thread; a context once returned is not changed any more.

#include <memory>

#include "fulmar/tls_config.hpp"
#include "fulmar/result.hpp"

struct ssl_ctx_st;

namespace fulmar::net {

using TlsContext = std::shared_ptr<ssl_ctx_st>;

// Errors are Errc::invalid_config; they name the field, its environment variable, the file and why.
Result<TlsContext> tls_context(const TlsConfig& config);

}  // namespace fulmar::net
