//! The server within this process, with methods that only a test has.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use jsonrpsee::RpcModule;
use jsonrpsee::core::RpcResult;
use jsonrpsee::types::Params;
use sockbroker_policy::Policy;
use sockbroker_sys::process::effective_uid;
use sockbroker_test_support::{Folder, HANG, LspClient};
use sockbrokerd::config::limits::Limits;
use sockbrokerd::session::broker::Broker;
use sockbrokerd::transport::server::Server;
use sockbrokerd::transport::shutdown::ShutdownSwitch;
use tokio::net::UnixListener;

/// A server on a thread of its own; it ends on drop.
#[derive(Debug)]
pub(crate) struct InProcess {
    folder: Folder,
    switch: Option<ShutdownSwitch>,
    thread: Option<JoinHandle<()>>,
    /// How many calls of `test_arrive` have begun.
    pub(crate) arrived: Arc<AtomicU64>,
    /// How many of them came out of order.
    pub(crate) misplaced: Arc<AtomicU64>,
}

impl InProcess {
    /// Starts one.
    pub(crate) fn start(limits: Limits) -> Self {
        let folder = Folder::new();
        let path = folder.join("socket");
        let (arrived, misplaced) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let further = further(arrived.clone(), misplaced.clone());
        let (switch, signal) = ShutdownSwitch::new();
        let (ready, wait) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let broker = Arc::new(Broker::new(Policy::built_in(effective_uid()), limits));
                let methods = sockbrokerd::handlers::with_further(further.into()).unwrap();
                let listener = UnixListener::bind(path).unwrap();
                ready.send(()).unwrap();
                Server::new(broker, methods, signal).listen(listener).await;
            });
        });
        wait.recv_timeout(HANG).unwrap();
        Self { folder, switch: Some(switch), thread: Some(thread), arrived, misplaced }
    }

    /// A bare connection.
    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.join("socket")).unwrap()
    }

    /// A connection with LSP framing.
    pub(crate) fn lsp(&self) -> LspClient {
        LspClient::over(self.connect())
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        if let Some(switch) = self.switch.take() {
            switch.begin(Duration::ZERO);
        }
        if let Some(thread) = self.thread.take() {
            // A failure there shows in the test; here it would hide it.
            thread.join().ok();
        }
    }
}

/// Panics of every sort, and a call that notes when it begins.
fn further(arrived: Arc<AtomicU64>, misplaced: Arc<AtomicU64>) -> RpcModule<()> {
    let mut module = RpcModule::new(());
    let panics = |_: Params<'_>, (): &(), _: &_| fail("at once");
    module.register_method("test_panic", panics).unwrap();
    let before_waiting = |_: Params<'static>, _, _| async { fail("before any wait") };
    module.register_async_method("test_panic_before_waiting", before_waiting).unwrap();
    let after_waiting = |_: Params<'static>, _, _| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        fail("after a wait")
    };
    module.register_async_method("test_panic_after_waiting", after_waiting).unwrap();
    let on_a_thread = |_: Params<'static>, _, _| async {
        let failed = tokio::task::spawn_blocking(|| panic!("on another thread")).await;
        std::panic::resume_unwind(failed.map(drop).unwrap_err().into_panic())
    };
    module
        .register_async_method::<RpcResult<()>, _, _>("test_panic_elsewhere", on_a_thread)
        .unwrap();
    let arrive = move |params: Params<'static>, _, _| {
        let (arrived, misplaced) = (arrived.clone(), misplaced.clone());
        async move {
            let number: u64 = params.one().unwrap();
            if arrived.fetch_add(1, Ordering::SeqCst) != number {
                misplaced.fetch_add(1, Ordering::SeqCst);
            }
            // Every other call waits, so that answers overtake each other.
            if number.is_multiple_of(2) {
                tokio::time::sleep(Duration::from_millis(number % 7)).await;
            }
            RpcResult::Ok(number)
        }
    };
    module.register_async_method("test_arrive", arrive).unwrap();
    module
}

fn fail(words: &str) -> RpcResult<()> {
    panic!("{words}")
}
