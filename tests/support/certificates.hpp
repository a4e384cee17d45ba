#pragma once
// Certificates: an authority of a test's own and what it issues, as PEM files in a directory, made anew at each run.
//
// Everything throws std::runtime_error. Not thread-safe.

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

struct evp_pkey_st;
struct x509_st;

namespace fulmar::test {

// A certificate's file and its key's.
struct KeyPair {
  std::filesystem::path certificate;
  std::filesystem::path key;
};

class Certificates {
 public:
  enum class Use { server, client, any };
  struct Request {
    std::string name;  // of the files, and the subject's common name
    Use use = Use::server;
    std::vector<std::string> hosts{};         // names
    std::vector<std::string> addresses{};     // "127.0.0.1"
    std::chrono::hours from{-24}, until{24};  // from now
    bool self_signed = false;                 // else by this authority
    std::string key_password{};               // the key file is encrypted
  };

  // Makes the authority: ca_file().
  explicit Certificates(std::filesystem::path directory, const std::string& authority = "Test Authority");
  ~Certificates();
  Certificates(const Certificates&) = delete;
  Certificates& operator=(const Certificates&) = delete;

  std::filesystem::path ca_file() const { return ca_file_; }
  // A name that was issued before is replaced: its files are renewed.
  KeyPair issue(const Request& request);
  // For a server at localhost, 127.0.0.1 and ::1.
  KeyPair server(const std::string& name = "server");
  KeyPair client(const std::string& name = "client");

 private:
  struct Free {
    void operator()(evp_pkey_st* key) const;
    void operator()(x509_st* certificate) const;
  };

  std::filesystem::path directory_;
  std::filesystem::path ca_file_;
  std::unique_ptr<evp_pkey_st, Free> key_;
  std::unique_ptr<x509_st, Free> certificate_;
};

}  // namespace fulmar::test
