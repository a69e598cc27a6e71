//! MQTT as pure code: packets and sessions, without sockets, clocks or I/O.

pub mod codec;
pub mod limits;
pub mod packet;
pub mod session;
