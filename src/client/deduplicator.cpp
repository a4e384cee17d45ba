#include "client/deduplicator.hpp"

#include <openssl/evp.h>

#include <bit>
#include <cstring>
#include <new>

namespace fulmar {
namespace {

using Hash = std::array<unsigned char, 16>;

void append_hex(std::string& out, const Hash& hash) {
  constexpr std::string_view digits = "0123456789abcdef";
  for (const unsigned byte : hash) {
    out += digits[byte >> 4];
    out += digits[byte & 15];
  }
}

}  // namespace

// The first half of a SHA-256. The algorithm is looked up once: that costs more than digesting an envelope.
class Deduplicator::Digest {
 public:
  Digest() : algorithm_(EVP_MD_fetch(nullptr, "SHA256", nullptr)), context_(EVP_MD_CTX_new()) {
    if (!algorithm_ || !context_) throw std::bad_alloc();  // libcrypto without SHA-256 there is none
  }

  Hash of(std::string_view text) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> full{};
    EVP_DigestInit_ex2(context_.get(), algorithm_.get(), nullptr);
    EVP_DigestUpdate(context_.get(), text.data(), text.size());
    EVP_DigestFinal_ex(context_.get(), full.data(), nullptr);
    Hash first{};
    std::memcpy(first.data(), full.data(), first.size());
    return first;
  }

  // "type|id|" and what tells two of the same id apart, each preceded by its length.
  Key key_of(std::string_view type, std::string_view id, std::string_view tail) {
    text_.clear();
    for (const auto part : {type, id, tail}) {
      text_ += std::to_string(part.size());
      text_ += ':';
      text_ += part;
    }
    return std::bit_cast<Key>(of(text_));
  }

  std::string& tail() {
    tail_.clear();
    return tail_;
  }

 private:
  struct Free {
    void operator()(EVP_MD* algorithm) const { EVP_MD_free(algorithm); }
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD, Free> algorithm_;
  std::unique_ptr<EVP_MD_CTX, Free> context_;
  std::string text_;
  std::string tail_;
};

Deduplicator::Deduplicator(std::chrono::milliseconds ttl, std::size_t max_entries)
    : ttl_(ttl),
      capacity_(max_entries),
      slots_(std::make_unique_for_overwrite<Slot[]>(max_entries)),
      buckets_(std::bit_ceil(max_entries + max_entries / 2 + 1)),
      digest_(std::make_unique<Digest>()) {}

Deduplicator::~Deduplicator() = default;

std::optional<Deduplicator::Key> Deduplicator::key_of(const Message& message) {
  if (!reader_.read(message.text())) return std::nullopt;
  const auto& envelope = reader_.envelope();
  auto& tail = digest_->tail();
  if (const auto& sequence = reader_.sequence()) {
    tail += "seq=";
    tail += *sequence;
  } else {
    tail += "hash=";
    append_hex(tail, digest_->of(envelope.data));
  }
  return digest_->key_of(envelope.type, envelope.id, tail);
}

// The key is a digest: any bits of it are as good as a hash.
Deduplicator::Index& Deduplicator::bucket_of(const Key& key, std::uint64_t handler_id) {
  return buckets_[(key[0] ^ (handler_id * 0x9e37'79b9'7f4a'7c15)) & (buckets_.size() - 1)];
}

bool Deduplicator::find(const Key& key, std::uint64_t handler_id) {
  for (Index i = bucket_of(key, handler_id); i != 0; i = slots_[i - 1].next) {
    const auto& slot = slots_[i - 1];
    if (slot.key == key && slot.handler_id == handler_id) return true;
  }
  return false;
}

void Deduplicator::forget_oldest() {
  const auto& slot = slots_[oldest_];
  Index* link = &bucket_of(slot.key, slot.handler_id);
  while (*link != oldest_ + 1) link = &slots_[*link - 1].next;
  *link = slot.next;
  oldest_ = oldest_ + 1 == capacity_ ? 0 : oldest_ + 1;
  --count_;
}

// Each entry is forgotten once, so this is O(1) per entry over its life.
void Deduplicator::forget_expired(Instant now) {
  while (count_ > 0 && now - slots_[oldest_].marked >= ttl_) forget_oldest();
}

bool Deduplicator::seen(const Key& key, std::uint64_t handler_id, Instant now) {
  forget_expired(now);
  return find(key, handler_id);
}

void Deduplicator::mark(const Key& key, std::uint64_t handler_id, Instant now) {
  forget_expired(now);
  if (find(key, handler_id)) return;
  if (count_ == capacity_) forget_oldest();
  const std::size_t at = (oldest_ + count_) % capacity_;
  Index& bucket = bucket_of(key, handler_id);
  slots_[at] = {key, handler_id, now, bucket};
  bucket = static_cast<Index>(at + 1);
  ++count_;
}

Result<std::string> canonical_hash(std::string_view data) {
  std::string text;
  if (const auto wrong = rewrite_json_object(data, JsonStyle::canonical, Envelope::depth_max - 1, text))
    return fail(Errc::invalid_envelope, "the data of an envelope " + *wrong);
  std::array<unsigned char, EVP_MAX_MD_SIZE> full{};
  EVP_Digest(text.data(), text.size(), full.data(), nullptr, EVP_sha256(), nullptr);
  Hash first{};
  std::memcpy(first.data(), full.data(), first.size());
  std::string hex;
  append_hex(hex, first);
  return hex;
}

}  // namespace fulmar
