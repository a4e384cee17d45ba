#include "tests/support/certificates.hpp"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <stdexcept>

namespace fulmar::test {
namespace {

void check(bool good, const std::string& what) {
  if (good) return;
  char text[256];
  ERR_error_string_n(ERR_get_error(), text, sizeof text);
  throw std::runtime_error("certificates: " + what + ": " + text);
}

void add_extension(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str());
  check(extension, "extension " + value);
  const int added = X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
  check(added == 1, "extension " + value);
}

// Named by what it holds, and put in place whole: whoever reads the file meets the former one or this.
template <typename Write>
void write_file(const std::filesystem::path& path, const Write& write) {
  const auto made = path.string() + ".new";
  BIO* out = BIO_new_file(made.c_str(), "w");
  check(out, made);
  const bool written = write(out) == 1;
  check(BIO_free(out) == 1 && written, made);
  std::filesystem::rename(made, path);
}

}  // namespace

void Certificates::Free::operator()(evp_pkey_st* key) const { EVP_PKEY_free(key); }
void Certificates::Free::operator()(x509_st* certificate) const { X509_free(certificate); }

Certificates::Certificates(std::filesystem::path directory, const std::string& authority)
    : directory_(std::move(directory)), ca_file_(directory_ / (authority + ".ca.pem")) {
  key_.reset(EVP_EC_gen("P-256"));
  certificate_.reset(X509_new());
  auto* made = certificate_.get();
  check(key_ && made, "authority");
  X509_set_version(made, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(made), 1);
  X509_gmtime_adj(X509_getm_notBefore(made), -60 * 60 * 24 * 365);
  X509_gmtime_adj(X509_getm_notAfter(made), 60 * 60 * 24 * 365);
  X509_set_pubkey(made, key_.get());
  auto* subject = X509_get_subject_name(made);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(authority.c_str()), -1, -1, 0);
  X509_set_issuer_name(made, subject);
  add_extension(made, made, NID_basic_constraints, "critical,CA:TRUE");
  add_extension(made, made, NID_key_usage, "critical,keyCertSign,cRLSign");
  add_extension(made, made, NID_subject_key_identifier, "hash");
  check(X509_sign(made, key_.get(), EVP_sha256()) > 0, "sign");
  write_file(ca_file_, [&](BIO* out) { return PEM_write_bio_X509(out, made); });
}

Certificates::~Certificates() = default;

KeyPair Certificates::issue(const Request& request) {
  const std::unique_ptr<EVP_PKEY, Free> key(EVP_EC_gen("P-256"));
  const std::unique_ptr<X509, Free> certificate(X509_new());
  auto* made = certificate.get();
  check(key && made, request.name);
  X509_set_version(made, X509_VERSION_3);
  std::uint64_t serial = 0;
  check(RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof serial) == 1, "serial number");
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(made), serial >> 1);
  X509_gmtime_adj(X509_getm_notBefore(made), std::chrono::seconds(request.from).count());
  X509_gmtime_adj(X509_getm_notAfter(made), std::chrono::seconds(request.until).count());
  X509_set_pubkey(made, key.get());
  X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(request.name.c_str()), -1, -1, 0);
  auto* issuer = request.self_signed ? made : certificate_.get();
  X509_set_issuer_name(made, X509_get_subject_name(issuer));
  add_extension(made, issuer, NID_basic_constraints, "critical,CA:FALSE");
  if (request.use != Use::any) {
    add_extension(made, issuer, NID_ext_key_usage, request.use == Use::server ? "serverAuth" : "clientAuth");
  }
  std::string names;
  for (const auto& host : request.hosts) names += (names.empty() ? "DNS:" : ",DNS:") + host;
  for (const auto& address : request.addresses) names += (names.empty() ? "IP:" : ",IP:") + address;
  if (!names.empty()) add_extension(made, issuer, NID_subject_alt_name, names);
  check(X509_sign(made, request.self_signed ? key.get() : key_.get(), EVP_sha256()) > 0, "sign");

  const KeyPair files{directory_ / (request.name + ".crt"), directory_ / (request.name + ".key")};
  const auto& password = request.key_password;
  write_file(files.key, [&](BIO* out) {
    return PEM_write_bio_PrivateKey(out, key.get(), password.empty() ? nullptr : EVP_aes_256_cbc(),
                                    reinterpret_cast<const unsigned char*>(password.data()),
                                    static_cast<int>(password.size()), nullptr, nullptr);
  });
  write_file(files.certificate, [&](BIO* out) { return PEM_write_bio_X509(out, made); });
  return files;
}

KeyPair Certificates::server(const std::string& name) {
  return issue({.name = name, .hosts = {"localhost"}, .addresses = {"127.0.0.1", "::1"}});
}

KeyPair Certificates::client(const std::string& name) { return issue({.name = name, .use = Use::client}); }

}  // namespace fulmar::test
