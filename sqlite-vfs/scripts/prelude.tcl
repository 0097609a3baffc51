# Runs one of SQLite's test scripts with every database on Quire.
#
#   testfixture prelude.tcl SCRIPT ?ARGUMENTS?
#
# The environment names the extension (SCRIPTS_EXTENSION) and the helper of
# files.c (SCRIPTS_FILES). The last line printed says how many connections
# were opened on Quire, and which were not though nobody asked for another VFS.

namespace eval quire {
  # SQLite makes its own VFS the default whenever it is initialised again; a
  # script that then went on with ordinary files would pass for nothing.
  variable lost 1
  variable opened 0
  variable other 0
  variable strays {}
  # Names that were opened since they were deleted: a file is there from its opening on.
  variable names
  # Connections, with what they were opened with.
  variable connections
  # Channels on copies of databases: {copy, name, whether it goes back}.
  variable copies
  variable serial 0
  variable prelude [file normalize [info script]]
  array set names {}
  array set connections {}
  array set copies {}
}

# The commands that are taken over, under their old names.
foreach command {file glob open close exec exit sqlite3 sqlite3_initialize sqlite3_shutdown hexio_read hexio_write} {
  rename ::$command ::quire::real_$command
}

# ---- the default VFS

proc quire::ensure {} {
  variable lost
  if {!$lost} return
  set lost 0
  with_functions {
    ::quire::hidden eval {SELECT quire_default_vfs(1)}
  }
  hold 1
}

# Keeps the data directory open, or lets another process have it.
proc quire::hold {on} {
  variable child
  if {!$child} { call {SELECT vfs_hold($a)} $on }
}

# Runs a script with a connection ::quire::hidden that has the functions of the
# extension and of files.c. It is gone afterwards: SQLite cannot be shut down under it.
proc quire::with_functions {script} {
  real_sqlite3 ::quire::hidden :memory:
  try {
    ::quire::hidden enable_load_extension 1
    foreach library [list $::env(SCRIPTS_EXTENSION) $::env(SCRIPTS_FILES)] {
      ::quire::hidden eval {SELECT load_extension($library)}
    }
    uplevel 1 $script
  } finally {
    ::quire::hidden close
  }
}

proc sqlite3_shutdown {args} {
  set ::quire::lost 1
  uplevel 1 [list ::quire::real_sqlite3_shutdown {*}$args]
}

proc sqlite3_initialize {args} {
  set result [uplevel 1 [list ::quire::real_sqlite3_initialize {*}$args]]
  quire::ensure
  return $result
}

proc sqlite3 {args} {
  set opens [expr {[llength $args] >= 2 && ![string match -* [lindex $args 0]]}]
  if {$opens} {
    quire::ensure
  }
  set result [uplevel 1 [list ::quire::real_sqlite3 {*}$args]]
  if {$opens} {
    quire::note_opened [uplevel 1 [list namespace which -command [lindex $args 0]]] {*}[lrange $args 1 end]
  }
  return $result
}

# Commands that open databases, or VFSs over the one that is the default.
foreach command {
  sqlite3_open sqlite3_open16 sqlite3_open_v2 btree_open sqlite3_crash_enable testvfs register_devsim register_jt_vfs
  sqlite3_multiplex_initialize sqlite3_quota_initialize vfslog
} {
  if {[info commands ::$command] eq ""} continue
  rename ::$command ::quire::real_$command
  proc ::$command {args} "quire::ensure; uplevel 1 \[list ::quire::real_$command {*}\$args\]"
}

# Asks the file of a new connection which VFS it is on.
proc quire::note_opened {db name args} {
  variable opened; variable other; variable strays; variable names; variable connections
  if {$name eq "" || [string match *:memory:* $name] || [string match *mode=memory* $name]} return
  # The answer takes memory: while a script refuses that, the question would change what it counts.
  if {[sqlite3_memdebug_pending] >= 0} return
  set vfs [file_control_vfsname $db]
  if {[string match *quire* $vfs]} {
    incr opened
    set names([path $name]) 1
    set connections($db) [list $name {*}$args]
  } elseif {"-vfs" in $args || [string match *vfs=* $name]} {
    incr other
  } else {
    lappend strays "$name:$vfs"
  }
}

# ---- databases as files

proc quire::path {name} {
  regexp {^file:(?://)?([^?#]*)} $name -> name
  return [real_file normalize $name]
}

# Runs one of the functions of files.c.
proc quire::call {sql args} {
  set arguments $args
  lassign $args a b c
  set result ""
  with_functions {
    set result [::quire::hidden onecolumn $sql]
  }
  return $result
}

# How many bytes a database has; empty if there is none.
proc quire::size {name} {
  variable names
  ensure
  set path [path $name]
  set size [call {SELECT vfs_size($a)} $path]
  if {[regexp -- {-journal$} $name]} { return $size }
  # An emptied volume is a deleted file, until it is opened again.
  if {$size in {"" 0}} {
    return [expr {[info exists names($path)] ? 0 : ""}]
  }
  return $size
}

# Whether a name is a database, or the journal of one, on Quire.
proc quire::has {name} {
  if {[string match {*.tcl} $name] || [real_file exists $name] || [regexp -- {-(wal|shm)$} $name]} { return 0 }
  return [expr {[size $name] ne ""}]
}

# The paths of all databases, also of those that only SQL has named.
proc quire::paths {} {
  variable names
  ensure
  set volumes {}
  with_functions {
    set volumes [::quire::hidden eval {SELECT substr(name, 3) FROM quire_volumes WHERE name LIKE 'fs/%'}]
  }
  set paths [lsort -unique [concat [array names names] $volumes]]
  return [lmap path $paths {expr {[size $path] eq "" ? [continue] : $path}}]
}

proc quire::contents {name} {
  call {SELECT vfs_read($a, 0, 1<<30)} [path $name]
}

# A journal lives and dies with the connection that writes it: one from Tcl is a file that nobody reads.
proc quire::replace {name bytes} {
  variable names
  if {[regexp -- {-journal$} $name]} {
    set channel [real_open $name wb]
    ::puts -nonewline $channel $bytes
    return [real_close $channel]
  }
  set names([path $name]) 1
  call {SELECT vfs_replace($a, @b)} [path $name] $bytes
}

proc quire::delete {name} {
  variable names
  if {![regexp -- {-journal$} $name] && [size $name] ni {"" 0}} {
    # One that is being written stays (5 is SQLITE_BUSY); a file's name would go, and the writer on with the rest.
    if {[catch { call {SELECT vfs_replace($a, x'')} [path $name] } error] && ![string match {*answered 5} $error]} {
      error $error
    }
  }
  unset -nocomplain names([path $name])
}

proc quire::file_bytes {name} {
  set channel [real_open $name rb]
  try { return [read $channel] } finally { real_close $channel }
}

# Takes in a file that Tcl wrote: a database is one by its name.
proc quire::adopt {name} {
  if {![real_file isfile $name] || ![regexp {db[0-9]*$} [real_file tail $name]]} return
  replace $name [file_bytes $name]
  real_file delete $name
}

proc quire::copy {from to} {
  if {[real_file isdirectory $to]} { set to [real_file join $to [real_file tail $from]] }
  if {[has $from]} {
    replace $to [contents $from]
  } else {
    real_file copy -force $from $to
    adopt $to
  }
}

proc file {sub args} {
  set names [lsearch -all -inline -not $args -*]
  set name [lindex $names 0]
  set known [expr {$sub in {exists size isfile readable writable mtime attributes copy rename} && [quire::has $name]}]
  switch -- $sub {
    exists - isfile - readable - writable { if {$known} { return 1 } }
    size { if {$known} { return [quire::size $name] } }
    mtime { if {$known} { return [clock seconds] } }
    attributes { if {$known} { error "$name is a volume: it has no attributes of a file" } }
    delete {
      foreach name $names { quire::delete $name }
    }
    copy {
      set to [lindex $names 1]
      if {"-force" ni $args && [file exists $to] && ![quire::real_file isdirectory $to]} {
        error "error copying \"$name\" to \"$to\": file already exists"
      }
      if {$known || [quire::real_file isfile $name]} { return [quire::copy $name $to] }
    }
    rename {
      if {$known} {
        quire::copy $name [lindex $names 1]
        return [quire::delete $name]
      }
    }
  }
  uplevel 1 [list ::quire::real_file $sub {*}$args]
}

proc glob {args} {
  set found {}
  set failed [catch { uplevel 1 [list ::quire::real_glob {*}$args] } found options]
  if {$failed} { set error $found; set found {} }
  foreach path [quire::paths] {
    foreach pattern [lsearch -all -inline -not $args -*] {
      if {[quire::real_file normalize $pattern] eq $path || [string match [quire::real_file join [pwd] $pattern] $path]} {
        lappend found [expr {[quire::real_file pathtype $pattern] eq "absolute" ? $path : [quire::real_file tail $path]}]
      }
    }
  }
  if {$failed && $found eq ""} { return -options $options $error }
  return $found
}

proc open {name args} {
  if {[string match |* $name]} {
    set name [quire::with_prelude [string range $name 1 end]]
    return [uplevel 1 [list ::quire::real_open |$name {*}$args]]
  }
  set mode [lindex [concat $args r] 0]
  set writes [regexp {[wa+]|WRONLY|RDWR} $mode]
  if {[quire::has $name]} {
    set copy .quire-copy-[incr ::quire::serial]
    set channel [quire::real_open $copy wb]
    puts -nonewline $channel [quire::contents $name]
    quire::real_close $channel
    set channel [quire::real_open $copy {*}$args]
    set ::quire::copies($channel) [list $copy [quire::path $name] $writes]
    return $channel
  }
  set channel [uplevel 1 [list ::quire::real_open $name {*}$args]]
  if {$writes} { set ::quire::copies($channel) [list "" [quire::path $name] 1] }
  return $channel
}

proc close {channel args} {
  uplevel 1 [list ::quire::real_close $channel {*}$args]
  if {![info exists ::quire::copies($channel)]} return
  lassign $::quire::copies($channel) copy name writes
  unset ::quire::copies($channel)
  if {$copy eq ""} { return [quire::adopt $name] }
  if {$writes} { quire::replace $name [quire::file_bytes $copy] }
  quire::real_file delete $copy
}

proc hexio_read {name offset amount} {
  if {![quire::has $name]} { return [quire::real_hexio_read $name $offset $amount] }
  quire::call {SELECT hex(vfs_read($a, $b, $c))} [quire::path $name] $offset $amount
}

proc hexio_write {name offset hex} {
  # A journal that would be left over on disk is gone here; the cases that look for its effects fail by themselves.
  if {[regexp -- {-journal$} $name] && ![quire::real_file exists $name]} { return [expr {[string length $hex] / 2}] }
  if {![quire::has $name]} {
    # Asked for a file that is not there, SQLite's own loses its memory.
    if {![quire::real_file exists $name]} { error "cannot open output file $name" }
    set written [quire::real_hexio_write $name $offset $hex]
    quire::adopt $name
    return $written
  }
  set bytes [binary format H* $hex]
  quire::call {SELECT vfs_write($a, $b, @c)} [quire::path $name] $offset $bytes
  string length $bytes
}

# ---- other processes

# Lets a command of a new testfixture begin with this file too.
proc quire::with_prelude {command} {
  variable prelude
  set program [lindex $command 0]
  if {[path $program] ne [path [info nameofexec]]} { return $command }
  return [linsert $command 1 $prelude]
}

# Closes a connection for a while; gives the databases attached to it.
proc quire::part {db} {
  set schemas {}
  $db eval {PRAGMA database_list} row {
    if {$row(name) ni {main temp} && $row(file) ne ""} { lappend schemas $row(name) $row(file) }
  }
  $db close
  return $schemas
}

proc quire::rejoin {db schemas} {
  variable connections
  real_sqlite3 $db {*}$connections($db)
  foreach {schema file} $schemas {
    $db eval {ATTACH $file AS $schema}
  }
}

proc exec {args} {
  set command [quire::with_prelude $args]
  if {$command eq $args} { return [uplevel 1 [list ::quire::real_exec {*}$args]] }
  # One process at a time has the data directory, so this one lets go of it meanwhile.
  set idle [lmap db [array names ::quire::connections] {expr {[info commands $db] eq "" ? [continue] : $db}}]
  set attached [lmap db $idle { quire::part $db }]
  quire::hold 0
  try {
    uplevel 1 [list ::quire::real_exec {*}$command]
  } finally {
    quire::hold 1
    foreach db $idle schemas $attached { quire::rejoin $db $schemas }
  }
}

# ---- the run

proc exit {args} {
  if {!$::quire::child} {
    ::puts "quire: opened $::quire::opened on quire, $::quire::other elsewhere on demand, strays: $::quire::strays"
  }
  flush stdout
  quire::real_exit {*}$args
}

set argv0 [lindex $argv 0]
set argv [lrange $argv 1 end]
# Several processes on one data directory are for a later version: as under valgrind, cases with
# several clients run only with all of them in this process.
set G(valgrind) 1
set quire::child [expr {![string match *.test $argv0]}]
quire::ensure
if {[catch { source $argv0 } message options]} {
  ::puts "quire: aborted: [dict get $options -errorinfo]"
  exit 1
}
exit 0
