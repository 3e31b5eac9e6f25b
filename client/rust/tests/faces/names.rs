//! Host names, services, protocols and interfaces.

use sockbroker_client::{Address, Error};

use crate::setup::{bounded, connect, daemon};

#[test]
fn names_are_resolved_and_errors_are_typed() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        assert_eq!(broker.getservbyname("http", Some("tcp")).unwrap(), 80);
        assert_eq!(broker.getservbyport(443, None).unwrap(), "https");
        assert_eq!(broker.getprotobyname("icmp").unwrap(), 1);
        assert_eq!(broker.gethostbyname("127.0.0.1").unwrap(), "127.0.0.1");
        assert!(!broker.gethostname().unwrap().is_empty());
        let index = broker.if_nametoindex("lo").unwrap();
        assert_eq!(broker.if_indextoname(index).unwrap(), "lo");
        assert!(broker.if_nameindex().unwrap().contains(&(index, "lo".to_owned())));
        let numeric = broker.getnameinfo(Address::host("127.0.0.1", 80), 3).unwrap();
        assert_eq!(numeric, ("127.0.0.1".to_owned(), "80".to_owned()));
        let error = broker.gethostbyname("no such host").unwrap_err();
        assert!(matches!(error, Error::Resolver { errno: ..0, .. }), "{error:?}");
        let error = broker.getservbyname("no such service", None).unwrap_err();
        assert!(matches!(error, Error::Os { errno: None, .. }), "{error:?}");
    });
}
