// A table of text for a terminal: columns as wide as what is in them.
#pragma once

#include <string>
#include <vector>

namespace loopfast::cli {

struct Column {
    std::string title;
    bool right = false;  ///< numbers stand at the right
};

/// Lines, each ended by a newline; two spaces between columns, none after the last.
std::string format_table(const std::vector<Column>& columns,
                         const std::vector<std::vector<std::string>>& rows);

}  // namespace loopfast::cli
