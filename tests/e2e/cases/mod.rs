//! The cases, one theme a file. Each is a sentence, has a deadline and runs beside all others.

mod ground;
