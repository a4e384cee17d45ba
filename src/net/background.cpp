#include "net/background.hpp"

#include <signal.h>

#include <list>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include <boost/asio/post.hpp>

namespace fulmar::net {

namespace asio = boost::asio;

namespace {

// Signals are for the program's own threads.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

// The mutex orders "post what follows" and "cancelled, the executor's context may go away": it is held for the length of a
// post, never during the work.
struct Background::Job {
  std::function<void()> work;
  std::mutex mutex;
  std::optional<asio::any_io_executor> executor;  // empty when cancelled
  std::function<void()> then;
  // Among those that wait for a thread; by Threads only.
  std::list<std::shared_ptr<Job>>::iterator place{};
  bool waits = false;

  static void done(const std::shared_ptr<Job>& job) {
    const std::lock_guard lock(job->mutex);
    if (!job->executor) return;
    // Runs where cancel() runs too, so `then` is there or it was cancelled.
    asio::post(*job->executor, [job] {
      std::function<void()> then;
      {
        const std::lock_guard inner(job->mutex);
        then = std::move(job->then);
        job->executor.reset();
      }
      if (then) then();
    });
  }
};

// The threads of the process. They come with the work and end without it. The mutex is never held during any work.
struct Background::Threads {
  std::mutex mutex;
  std::list<std::shared_ptr<Job>> waiting;
  int running = 0;

  // Never destroyed: a thread that hangs in a look-up may outlive everything else.
  static Threads& of_process() {
    static auto* threads = new Threads;
    return *threads;
  }

  Result<void> start(const std::shared_ptr<Job>& job) {
    const std::lock_guard lock(mutex);
    if (running == threads_max) {
      job->place = waiting.insert(waiting.end(), job);
      job->waits = true;
      return {};
    }
    try {
      const SignalsBlocked blocked;
      std::thread([this, job] { run(job); }).detach();
    } catch (const std::system_error& error) {
      return fail(Errc::connection_failed, std::string("cannot start a thread: ") + error.what());
    }
    ++running;
    return {};
  }

  void cancel(const std::shared_ptr<Job>& job) {
    const std::lock_guard lock(mutex);
    if (std::exchange(job->waits, false)) waiting.erase(job->place);
  }

  void run(std::shared_ptr<Job> job) {
    while (job) {
      job->work();
      Job::done(job);
      job = next();
    }
  }

  std::shared_ptr<Job> next() {
    const std::lock_guard lock(mutex);
    if (waiting.empty()) {
      --running;
      return nullptr;
    }
    auto job = std::move(waiting.front());
    waiting.pop_front();
    job->waits = false;
    return job;
  }
};

Background::Background(asio::any_io_executor executor) : executor_(std::move(executor)) {}
Background::~Background() { cancel(); }

void Background::cancel() {
  const auto job = std::move(job_);
  if (!job) return;
  Threads::of_process().cancel(job);
  std::function<void()> unwanted;  // destroyed outside of the lock
  const std::lock_guard lock(job->mutex);
  job->executor.reset();
  unwanted.swap(job->then);
}

Result<void> Background::run(std::function<void()> work, std::function<void()> then) {
  cancel();
  job_ = std::make_shared<Job>();
  job_->work = std::move(work);
  job_->executor = executor_;
  job_->then = std::move(then);
  return Threads::of_process().start(job_);
}

void Background::later(std::function<void()> then) {
  cancel();
  job_ = std::make_shared<Job>();
  job_->executor = executor_;
  job_->then = std::move(then);
  Job::done(job_);
}

}  // namespace fulmar::net
