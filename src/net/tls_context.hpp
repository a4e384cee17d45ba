#pragma once
// TlsContext: what a TLS configuration comes to once its files are read: trusted authorities, our certificate and key,
// versions, ciphers. OpenSSL's SSL_CTX, which connections share.
//
// Reading the system's authorities takes tens of milliseconds and megabytes, so the process keeps the contexts it used last
// and uses them again as long as the files are what they were (device, inode, size, time of change): a renewed file counts
// from the next call on. Those who want the same at the same time read once.
//
// Thread-safety: any thread; a context once returned is not changed any more.

#include <memory>

#include "fulmar/tls_config.hpp"
#include "fulmar/result.hpp"

struct ssl_ctx_st;

namespace fulmar::net {

using TlsContext = std::shared_ptr<ssl_ctx_st>;

// The context if it is at hand, without reading files or waiting; else null.
TlsContext kept_tls_context(const TlsConfig& config);

// Blocks while files are read. Errors are Errc::invalid_config; they name the field, its environment variable, the file and
// why.
Result<TlsContext> tls_context(const TlsConfig& config);

}  // namespace fulmar::net
